"""raydist: Ray-distributed training and indexing for information retrieval.

    import raydist as rd

    index = rd.index([{"id": "1", "text": "a heron waits for fish"}], "idx")
    index.search("heron")

Each verb of the command line is a function with the same keys (`raydist.api`). Importing this
package loads neither torch nor ray; what a name needs is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raydist.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    JobError,
    NotFoundError,
    RaydistError,
)

if TYPE_CHECKING:
    from raydist.api.benchmark import Benchmark, benchmark
    from raydist.api.collection import Collection, collection
    from raydist.api.comparison import Comparison, compare, evaluate
    from raydist.api.feedback import axiom, bm25prf, rm3, rocchio
    from raydist.api.folders import Index, Vectors, open
    from raydist.api.hits import Hit, Hits
    from raydist.api.models import Encoder, Reranker
    from raydist.api.outputs import Output, Training
    from raydist.api.run import Run, read_run
    from raydist.api.service import Service, serve
    from raydist.api.stages import Pipeline, Steps, fuse
    from raydist.api.verbs import (
        analyze,
        convert,
        distill,
        embed,
        export,
        index,
        merge,
        mine,
        rerank,
        score,
        search,
        train,
        tune,
    )

__version__ = "0.2.0"

__all__ = [
    "ArtifactError",
    "Benchmark",
    "Collection",
    "Comparison",
    "ConfigError",
    "DataError",
    "Encoder",
    "Hit",
    "Hits",
    "Index",
    "JobError",
    "NotFoundError",
    "Output",
    "Pipeline",
    "RaydistError",
    "Reranker",
    "Run",
    "Service",
    "Steps",
    "Training",
    "Vectors",
    "__version__",
    "analyze",
    "axiom",
    "benchmark",
    "bm25prf",
    "collection",
    "compare",
    "convert",
    "distill",
    "embed",
    "evaluate",
    "export",
    "fuse",
    "index",
    "merge",
    "mine",
    "open",
    "read_run",
    "rerank",
    "rm3",
    "rocchio",
    "score",
    "search",
    "serve",
    "train",
    "tune",
]

if not TYPE_CHECKING:
    _MODULES = {
        "benchmark": ("Benchmark", "benchmark"),
        "collection": ("Collection", "collection"),
        "comparison": ("Comparison", "compare", "evaluate"),
        "feedback": ("axiom", "bm25prf", "rm3", "rocchio"),
        "folders": ("Index", "Vectors", "open"),
        "hits": ("Hit", "Hits"),
        "models": ("Encoder", "Reranker"),
        "outputs": ("Output", "Training"),
        "run": ("Run", "read_run"),
        "service": ("Service", "serve"),
        "stages": ("Pipeline", "Steps", "fuse"),
        "verbs": (
            *("analyze", "convert", "distill", "embed", "export", "index", "merge", "mine"),
            *("rerank", "score", "search", "train", "tune"),
        ),
    }
    _HOMES = {name: module for module, names in _MODULES.items() for name in names}

    def __getattr__(name: str) -> Any:
        """Loads a public name when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module 'raydist' has no attribute {name!r}")
        import importlib

        value = getattr(importlib.import_module(f"raydist.api.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Returns the public names."""
        return sorted(__all__)
