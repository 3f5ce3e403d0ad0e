"""From configurations to objects: the only module that knows both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist.config.losses import (
    BiIR,
    DistillationLoss,
    InfoNCE,
)
from raydist.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from raydist.config.losses import Distillation, TargetConfig
    from raydist.config.losses import Loss as LossConfig
    from raydist.config.search import Fusion, Scoring
    from raydist.config.serve import ServeConfig
    from raydist.losses.listwise import Output
    from raydist.losses.objective import Objective, Part
    from raydist.losses.parts import Distill
    from raydist.protocols import Selective
    from raydist.records import Run
    from raydist.serving.search import Searcher


def open_retriever(
    folder: str,
    *,
    scoring: Scoring,
    ties: str = "docid",
    threads: int = 1,
    in_memory: bool = False,
    model: str | None = None,
    approximate: bool = False,
) -> Selective:
    """Returns what searches a folder (or its local copy): its manifest says what it is."""
    from raydist import storage
    from raydist.manifest import read_manifest

    place = storage.local(folder)
    if read_manifest(place, ["bow-index", "vectors"])["kind"] == "vectors":
        from raydist.dense.retriever import DenseRetriever

        return DenseRetriever.open(place, model=model, approximate=approximate)
    from raydist.bow.index import BowIndex
    from raydist.bow.search.retriever import BowRetriever

    options = scoring.model_dump(exclude={"kind", "variant", "smoothing"})
    name = scoring.variant if scoring.kind == "bm25" else scoring.smoothing
    index = BowIndex.open(place, in_memory=in_memory)
    return BowRetriever(index, model=name, ties=ties, threads=threads, **options)


def text_store(index: str) -> Path:
    """Returns the folder of the texts that were stored beside an index (or its local copy)."""
    from raydist import storage
    from raydist.manifest import read_manifest

    place = storage.local(index)
    # After documents were added, the store has another name.
    folder = place / (read_manifest(place).get("store") or "store")
    if not (folder / "store.json").is_file():
        raise ConfigError(
            f"index = {index}: no document store there; build the index with store=true, "
            "or give corpus="
        )
    return folder


def fuse_runs(runs: Sequence[Run], fusion: Fusion, k: int) -> Run:
    """Returns several runs as one."""
    from raydist.dense.fusion import interpolate, reciprocal_rank

    weights = fusion.weights or None
    if fusion.kind == "rrf":
        return reciprocal_rank(runs, constant=fusion.constant, weights=weights, k=k)
    return interpolate(runs, weights=weights, normalize=fusion.normalise, k=k)


def open_searcher(config: ServeConfig) -> Searcher:
    """Returns what searches the served index folders, with the texts of all that have some."""
    from pathlib import PurePath

    from raydist.serving.search import Searcher

    retrievers: dict[str, Selective] = {}
    stores = []
    for folder in config.index:
        retriever = open_retriever(folder, scoring=config.scoring)
        name = PurePath(folder).name
        retrievers[name if name not in retrievers else folder] = retriever
        store = getattr(getattr(retriever, "index", None), "store", None)
        stores += [store] if store is not None else []
    fuse = partial(_fuse, config.fusion)
    return Searcher(retrievers, stores, fuse)


def _fuse(fusion: Fusion, runs: Sequence[Run], k: int) -> Run:
    return fuse_runs(runs, fusion, k)


def build_objective(
    loss: LossConfig | None,
    distill: Distillation | None,
    losses: Mapping[str, LossConfig],
    *,
    output: Output = "real",
) -> Objective:
    """Returns the objective of one loss with distillation beside it, or of several named ones.

    Args:
        loss: the one loss.
        distill: beside it, where it is contrastive and the data has a teacher.
        losses: several by name, instead of `loss`; distillation is then one of them.
        output: what the student emits: its scores, or their sigmoids as probabilities.
    """
    from raydist.losses.objective import Objective
    from raydist.losses.parts import Distill

    beside = None
    if loss is not None and distill is not None and distill.kind != "none":
        fields = {"kind", "weight", "temperature", "student_temperature", "hard"}
        beside = Distill(**distill.model_dump(include=fields))
    named = dict(losses) if loss is None else {"": loss}
    return Objective(tuple(_part(name, item, beside, output) for name, item in named.items()))


def build_target(config: TargetConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns what turns (teacher scores, mask) into targets."""
    from raydist.losses.targets import make_targets

    return partial(make_targets, target=config.kind, threshold=config.threshold)


def _part(name: str, config: LossConfig, beside: Distill | None, output: Output) -> Part:
    """Returns one loss; without a name its terms are called by its kind."""
    from raydist.losses import listwise as lists
    from raydist.losses import pairwise, parts
    from raydist.losses.reinforced import biir

    options = config.model_dump(exclude={"kind", "weight"})
    if isinstance(config, BiIR):
        return biir(name, weight=config.weight, distill=beside, **options)
    name = name or config.kind
    if isinstance(config, InfoNCE):
        return parts.contrastive(name, weight=config.weight, distill=beside, **options)
    if isinstance(config, DistillationLoss):
        distill = parts.Distill(config.kind, temperature=options.pop("teacher_temperature"))
        return parts.distilling(name, distill, weight=config.weight, **options)
    temperature = options.pop("temperature")
    for own in ("teacher_temperature", "rank_temperature"):
        if own in options:
            options["temperature"] = options.pop(own)
    reads: Output = "real" if output == "real" else "log_prob"
    functions: dict[str, Callable[..., Any]] = {
        "listwise_softmax_ce": partial(lists.listwise_softmax_ce, output=reads),
        "distill_ranknet": lists.distill_rank_net,
        "adr_mse": lists.adr_mse,
        "listnet": lists.list_net,
        "lambda_loss": lists.lambda_loss,
        "infonce_list": lists.info_nce_list,
        "margin_mse_pairs": pairwise.margin_mse_pairs,
    }
    return parts.listwise(
        name,
        partial(functions[config.kind], **options),
        weight=config.weight,
        temperature=temperature,
        by_labels=config.kind == "infonce_list",
        probabilities=output != "real",
    )
