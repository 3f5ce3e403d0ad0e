"""What can be set of reranking and of a reranker; `reranker=` takes a kind, a name or a folder.

The `config.json` of a folder decides its kind: a causal language model is a `qwen3` reranker (what
its folder declares wins over Qwen3's own prompt), a sequence classifier a cross-encoder, anything
else a bi-encoder.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

from raydist.models.folders.packaged import packaged
from raydist.spec import ADDED, EXECUTION, FromText, Reads
from raydist.text.spec import AnalyzerSpec

RELEASED = ("Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-Reranker-8B")
"""The released Qwen3 rerankers, and below the prompt that they were trained with, byte for byte."""
TASK = "Given a search query, retrieve relevant concepts that match the query."
WEB_TASK = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

Truncation = Literal["truncate", "chunk_max", "error"]


def _analyzer(text: str) -> dict[str, str]:
    """Reads a language: stemmed by Snowball, English as by Lucene, others by their own rules."""
    from raydist.text.analyzer import canonical, snowball_languages

    name, default = canonical(text, "default")
    snowball = default == "default" and name in snowball_languages()
    return {"language": name, "stemmer": "snowball" if snowball else default}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bm25Spec:
    """BM25 over a query's own candidates."""

    kind: Literal["bm25"] = "bm25"
    """BM25; needs no model."""
    k1: Annotated[float, Ge(0)] = 1.5
    """Saturation of the term frequency."""
    b: Annotated[float, Ge(0), Le(1)] = 0.75
    """How much a document's length counts."""
    epsilon: Annotated[float, Ge(0)] = 0.25
    """Share of the mean idf given to terms in more than half of the candidates; only without an
    analyzer."""
    analyzer: Annotated[AnalyzerSpec | None, FromText(_analyzer), ADDED] = None
    """A language (english, german, ...): its words, stemmed, with Lucene's idf, which no term
    loses. Without one texts are cut at single spaces, as by rank-bm25."""
    index: Annotated[str | None, Reads("output")] = None
    """A bag-of-words index: its analysis and its statistics instead of the candidates' own."""

    def __post_init__(self) -> None:
        if self.analyzer is not None and self.index is not None:
            raise ValueError("index: has an analyzer of its own; leave analyzer out")


def _dtype(text: str) -> str:
    return "" if text == "auto" else text


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuralSpec:
    """Where a reranker's model runs, and how."""

    primary: ClassVar[str] = "model"

    device: Annotated[str, EXECUTION] = ""
    """cpu, cuda, cuda:1, ...; empty is an accelerator if there is one."""
    dtype: Annotated[Literal["", "float32", "bfloat16", "float16"], FromText(_dtype)] = ""
    """Of the weights; empty or auto is bfloat16 on an accelerator, else float32."""
    attention: Annotated[str, ADDED] = "sdpa"
    """sdpa (without padding on a GPU in half precision where the model allows it; what the model
    has, where it has none), eager, varlen (without padding in any case), or flash_attention_2 where
    installed."""
    trust_remote_code: Annotated[bool, EXECUTION] = False
    """Run the code that a folder brings with it: only of authors whom you trust."""
    batch_tokens: Annotated[int, Ge(0), EXECUTION] = 0
    """Most tokens of a batch, padding included; 0 goes by the device."""
    threads: Annotated[int, Ge(1), EXECUTION] = 2
    """Threads that tokenise."""
    truncation: Truncation = "truncate"
    """A document that does not fit is cut, scored in pieces (the best counts), or refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderSpec(NeuralSpec):
    """A sequence classifier that reads query and document together."""

    kind: Literal["cross_encoder"] = "cross_encoder"
    """Scores as sentence-transformers' CrossEncoder."""
    model: Annotated[str, MinLen(1), Reads("model")]
    """A folder, a finished training run, or a name on the Hugging Face hub."""
    max_length: Annotated[int, Ge(0)] = 0
    """Tokens of a pair, special tokens included; 0 is the model's own."""
    query_max_length: Annotated[int, Ge(0)] = 0
    """Tokens kept of a query; 0 cuts the longer of query and document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Spec(NeuralSpec):
    """A causal language model that answers yes or no."""

    kind: Literal["qwen3"] = "qwen3"
    """Score: the probability of yes."""
    model: Annotated[str, MinLen(1), Reads("model")] = RELEASED[0]
    """Qwen/Qwen3-Reranker-0.6B, -4B, -8B, or a local folder."""
    max_length: Annotated[int, Ge(1)] = 8192
    """Most tokens of a prompt, prefix and suffix included."""
    task: str = TASK
    """What the model is told to look for."""
    template: Annotated[Literal["", "concepts", "web"], ADDED] = ""
    """concepts: `task` as it is; web: the model card's task, for a search engine's queries. Empty:
    what the folder declares (a chat template and LogitScore), else concepts."""
    prefix: str = PREFIX
    """The prompt's beginning."""
    suffix: str = SUFFIX
    """The prompt's end."""
    share_prefix: Annotated[bool, EXECUTION] = True
    """Compute what comes before the document once per query."""

    @property
    def instruction(self) -> str:
        """The task, by `template`."""
        return WEB_TASK if self.template == "web" else self.task

    def __post_init__(self) -> None:
        if self.template == "web" and self.task != TASK:
            raise ValueError("template = web: has a task of its own; leave task out")
        if self.model not in RELEASED and not Path(self.model).is_dir():
            raise ValueError(
                f"model = {self.model}: neither a local folder nor one of {', '.join(RELEASED)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BiEncoderSpec(NeuralSpec):
    """A bi-encoder: dot products of query and document vectors; each is encoded on its own."""

    kind: Literal["biencoder"] = "biencoder"
    """Scores are similarities."""
    model: Annotated[str, MinLen(1), Reads("model")]
    """A folder, a finished training run, or a name on the Hugging Face hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredSpec(NeuralSpec):
    """A model of MLflow's registry; its folder decides the kind."""

    kind: Literal["registered"] = "registered"
    """Any of the others."""
    model: str
    """models:/NAME@ALIAS or models:/NAME/VERSION."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"models:/[^/@]+(@[^/@]+|/\d+)", self.model):
            raise ValueError(
                f"model = {self.model}: expected models:/NAME@ALIAS or models:/NAME/VERSION"
            )

    def at(self, folder: str) -> CrossEncoderSpec | Qwen3Spec | BiEncoderSpec:
        """Returns the spec of the model whose present version is in `folder`."""
        shared: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(NeuralSpec)}
        kind = _kind_of_folder(folder)
        if kind == "qwen3":
            return Qwen3Spec(model=folder, **shared)
        spec = CrossEncoderSpec if kind == "cross_encoder" else BiEncoderSpec
        return spec(model=folder, **shared)


def reranker_from_text(text: str) -> dict[str, Any]:
    """Returns the block that a kind, a released name, a folder or a hub name stands for."""
    word = text.strip()
    if word in ("bm25", "cross_encoder", "qwen3", "biencoder"):
        return {"kind": word}
    return {"kind": "qwen3" if word.startswith("Qwen/") else _kind_of_folder(word), "model": word}


def _served_reranker_from_text(text: str) -> dict[str, Any]:
    if text.strip().startswith("models:/"):
        return {"kind": "registered", "model": text.strip()}
    return reranker_from_text(text)


def _kind_of_folder(name: str) -> str:
    path = packaged(name)
    # A training run has a config.json of its own, which is not its model's.
    for folder in (path / "checkpoint-final", path):
        if not (folder / "modules.json").is_file() and not (folder / "config.json").is_file():
            continue
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            architectures = [str(each) for each in config.get("architectures") or []]
        except (OSError, ValueError, AttributeError):
            architectures = []
        if any(each.endswith("ForCausalLM") for each in architectures):
            return "biencoder" if _is_encoder(folder) else "qwen3"
        if any(each.endswith("ForSequenceClassification") for each in architectures):
            return "cross_encoder"
        return "biencoder"
    return "cross_encoder"


def _is_encoder(folder: Path) -> bool:
    """Returns whether a decoder's folder is read for vectors: by its modules, not by its head."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return len(modules) > 1
    except (OSError, ValueError, TypeError):
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranking:
    """How the candidates of a run are scored."""

    depth: Annotated[int, Ge(0)] = 0
    """Candidates of each query; 0 takes all."""
    missing: Literal["error", "drop", "keep"] = "error"
    """A candidate without text is an error, is dropped, or is kept below the scored ones."""
    split_pairs: Annotated[int, Ge(1)] = 1024
    """Pairs in a split, the unit of restart (of whole queries)."""
    workers: Annotated[int, Ge(0), EXECUTION] = 0
    """Ray actors; 0 works in this process, without Ray."""
    cpus_per_worker: Annotated[float, Gt(0), EXECUTION] = 1.0
    """CPUs of an actor."""
    gpus_per_worker: Annotated[float, Ge(0), EXECUTION] = 0.0
    """GPUs of an actor."""


RerankerSpec = Annotated[
    Bm25Spec | CrossEncoderSpec | Qwen3Spec | BiEncoderSpec, FromText(reranker_from_text)
]
"""A reranker of any kind."""

ServedRerankerSpec = Annotated[
    Bm25Spec | CrossEncoderSpec | Qwen3Spec | BiEncoderSpec | RegisteredSpec,
    FromText(_served_reranker_from_text),
]
"""A reranker of any kind, or a registered one."""
