"""Configuration of `raydist mine`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raydist.config.base import Flat, Verb, execution
from raydist.data.spec import CorpusSource, MiningSpec, Paths, QrelsSource, QueriesSource
from raydist.dense.spec import Fusion, Interpolate, Rrf
from raydist.models.spec import EncoderPlace
from raydist.reranking.spec import RerankerSpec
from raydist.spec import ADDED, Reads

_NORMALIZATIONS = ("minmax", "z", "none")


class MineConfig(Verb):
    """Writes training samples with hard negatives."""

    run: Annotated[Paths, Reads()] = ()
    """The source of candidates; several runs are fused. Without one, `index` is searched."""
    queries: QueriesSource
    """The queries' texts."""
    qrels: QrelsSource
    """Judgements: their positives become the samples' positives, never negatives."""
    corpus: CorpusSource | None = None
    """The documents' texts."""
    index: Annotated[Paths, Reads("output")] = ()
    """Folders that `index` or `embed` wrote: searched if there is no `run`, several are fused.
    One of `index` has the texts, if there is no `corpus`."""
    model: Annotated[EncoderPlace | None, ADDED] = None
    """The encoder of a searched index of vectors, if it was moved, or to load it in another way."""
    out: str = Field(min_length=1)
    """The file to write: FlagEmbedding's training jsonl."""
    mining: Flat[MiningSpec]
    fusion: Fusion = Rrf()
    """How several runs or indexes become one."""
    weights: list[float] | None = None
    """Another spelling of `fusion.weights`."""
    sort: bool = False
    """Order a run by its scores; without it, a run in another order is an error."""
    teacher: RerankerSpec | None = None
    """A reranker that scores the texts of the result; the run's scores are written without one."""
    scores: Literal["auto", "teacher", "none"] = "auto"
    """Scores to write as pos_scores and neg_scores: a run's are marked, and training does not
    distil from them, unless `teacher` declares the run as good as a teacher, which leaves out the
    positives that it does not have; `none` writes none."""
    prompt: str | None = None
    """An instruction to write with every query."""
    batch: int = execution(256, ge=1)
    """Queries whose texts are looked up together."""

    @model_validator(mode="before")
    @classmethod
    def _former_fusion(cls, data: Any) -> Any:
        """Reads `fusion=minmax` and `weights=`, as they once were."""
        if not isinstance(data, dict):
            return data
        fusion = data.get("fusion") or {}
        if isinstance(fusion, str):
            fusion = {"kind": fusion}
        if isinstance(fusion, dict):
            if (method := fusion.get("kind", "rrf")) in _NORMALIZATIONS:
                fusion = {**fusion, "kind": "interpolate", "normalize": method}
            if data.get("weights") is not None:
                fusion = {"kind": "rrf", **fusion, "weights": data["weights"]}
            if fusion:
                data = {**data, "fusion": fusion, "weights": None}
        return data

    def identity(self) -> dict[str, Any]:
        """Returns the fields that decide the result, the fusion by its former names."""
        values = super().identity()
        fusion = self.fusion
        if isinstance(fusion, Interpolate):
            values["fusion"] = fusion.normalize
        else:
            values["fusion"] = "rrf"
            if fusion.constant != Rrf().constant:
                values["constant"] = fusion.constant
        return {**values, "weights": list(fusion.weights) or None}

    @model_validator(mode="after")
    def _consistent(self) -> MineConfig:
        if not self.run and not self.index:
            raise ValueError("one of run and index is required: where candidates come from")
        if self.run and (self.corpus is None) != (len(self.index) == 1):
            raise ValueError("one of corpus and index is required: the documents' texts")
        sources, what = (self.run, "runs") if self.run else (self.index, "indexes")
        if (weights := self.fusion.weights) and len(weights) != len(sources):
            raise ValueError(f"fusion.weights has {len(weights)} numbers for {len(sources)} {what}")
        return self
