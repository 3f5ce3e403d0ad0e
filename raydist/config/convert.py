"""Configuration of `raydist convert` and `raydist export`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raydist.config.base import Verb, execution
from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource
from raydist.evaluation.spec import Tracking
from raydist.models.spec import FolderLayout
from raydist.spec import ADDED, Reads
from raydist.text.spec import AnalyzerSpec


class ConvertConfig(Verb):
    """Converts runs, samples and indexes."""

    source: Annotated[str, Reads()] = Field(alias="in", min_length=1)
    """What to convert: a run, training samples, an index folder, or a CIFF file."""
    out: str = Field(min_length=1)
    """The file to write, or the folder of an index."""
    to: (
        Literal[
            "trec",
            "jsonl",
            "csv",
            "tsv",
            "parquet",
            "rerank",
            "flagembedding",
            "tevatron",
            "ciff",
            "bmp",
            "index",
        ]
        | None
    ) = None
    """The form to write; follows from `in` and `out` if not given. Samples with ids and scores,
    such as lists of candidates, become a run (trec, jsonl, csv, tsv, parquet) or such lists
    (rerank)."""
    sort: bool = False
    """Order a run by its scores; without it, a run in another order is an error."""
    corpus: CorpusSource | None = None
    """Where ids become texts: the documents' texts."""
    queries: QueriesSource | None = None
    """Where ids become texts: the queries' texts."""
    qrels: QrelsSource | None = None
    """Judgements that make the positives of training samples from a run."""
    depth: int = Field(0, ge=0)
    """Candidates of each query of a run; 0 is all."""
    missing: Literal["error", "drop"] = "error"
    """A candidate without text is an error, or dropped."""
    positives: Literal["judged", "retrieved"] = "judged"
    """Positives of samples from a run: all judged ones, or those of them that were retrieved."""
    relevance: int = 1
    """Lowest grade of a positive."""
    negatives: int = Field(0, ge=0)
    """Negatives of each sample from a run; 0 is all."""
    block_size: int = Field(32, ge=1, le=256)
    """BMP: documents in a block."""
    compress_range: bool = True
    """BMP: compressed block maxima."""
    too_many: Literal["error", "prune"] = "error"
    """BMP: more terms than its 65,536 are an error, or pruned to the most frequent."""
    k1: float = Field(0.9, ge=0)
    """BMP: BM25's k1, for the stored impacts."""
    b: float = Field(0.4, ge=0, le=1)
    """BMP: BM25's b, for the stored impacts."""
    unit: float = Field(0.01, gt=0)
    """Vectors to index: the smallest weight that counts; others are rounded to multiples of it."""
    reorder: Annotated[bool, ADDED] = False
    """Vectors to index: put similar documents side by side in the postings, which get smaller, and
    searches faster; the conversion takes longer. Results stay the same."""
    analyzer: AnalyzerSpec = AnalyzerSpec()
    """CIFF to index: how its terms were analyzed, and queries will be."""


class ExportConfig(Verb):
    """Writes a Hugging Face folder with its model card."""

    checkpoint: Annotated[str, Reads("model")] = Field(min_length=1)
    """A training run (for its final checkpoint), a checkpoint, or a model folder."""
    out: str = Field(min_length=1)
    """The folder to write."""
    attention: Annotated[str, ADDED] = "sdpa"
    """sdpa (what the model has, where it has none), eager, or flash_attention_2 where installed."""
    trust_remote_code: bool = execution(False)
    """Run the code that the checkpoint brings with it: only of authors whom you trust."""
    adapter: Annotated[bool, ADDED] = False
    """Write the adapters of a LoRA run alone, beside the name of their base."""
    layout: Annotated[FolderLayout, ADDED] = "sentence-transformers"
    """Which library loads the folder, beside raydist; pylate is for multi-vector models."""
    name: str = ""
    """The model's name, `owner/name` to push; the folder's name if not given."""
    doc: Annotated[str, Reads("text")] = ""
    """Text of the model card: Markdown, or a file of it."""
    bibtex: Annotated[str, Reads("text")] = ""
    """How to cite the model: a BibTeX entry, or a file of it."""
    push: bool = execution(False)
    """Upload the folder to the Hugging Face hub."""
    private: bool = execution(True)
    """Create a private repository."""
    register_: str | None = execution(None, alias="register", min_length=1)
    """Register the model in MLflow under this name; `mlflow.pyfunc.load_model` loads it."""
    alias: str | None = execution(None, min_length=1)
    """Register the model in MLflow, and give it this alias if it beats the current holder."""
    tracking: Tracking = Tracking()
    """Where the registry is, for `register` and `alias`."""
