"""A reranker as a stage of a pipeline."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raydist.api.command import spoken_errors
from raydist.api.inputs import texts_of

if TYPE_CHECKING:
    from raydist.config.rerank import RerankConfig
    from raydist.protocols import Reranker, TextStore
    from raydist.records import Query
    from raydist.records import Run as AnyRun

_PAIRS = 1024  # scored between two messages of progress


@spoken_errors("raydist.rerank")
def checked(reranker: Any, **keys: Any) -> RerankConfig:
    """Returns the configuration of a reranker, its other inputs unset; its model is there.

    Raises:
        ConfigError: as `raydist rerank` does.
        DataError: there is no such model.
    """
    from raydist.config.load import load
    from raydist.config.rerank import RerankConfig
    from raydist.reranking.spec import Bm25Spec

    unset = {"run": "-", "queries": "-", "index": "-", "out": "-"}
    config = load(RerankConfig, [{**unset, "reranker": reranker, **keys}])
    if not isinstance(config.reranker, Bm25Spec):
        from raydist.models.backbone import resolve_folder

        resolve_folder(config.reranker.model)
    return config


class Rerank:
    """Candidates in the order of a reranker's scores; its model is loaded when it is first used."""

    def __init__(self, config: RerankConfig, texts: Any = None) -> None:
        self._config = config
        self._texts: TextStore | None = None
        self._texts_identity: Any = None
        if texts is not None:
            self._texts, self._texts_identity = texts_of(texts)
        self.needs_texts = texts is None

    @cached_property
    def _reranker(self) -> Reranker:
        from raydist.reranking.load import load_reranker

        return load_reranker(self._config.reranker)

    def depth_of(self, k: int) -> int:
        """Returns how many documents of each query it takes to give `k`."""
        return self._config.reranking.depth or k

    def apply(self, run: AnyRun, queries: Sequence[Query], texts: TextStore | None) -> AnyRun:
        """Returns the new run, while progress is shown if there is much to do."""
        import pyarrow as pa

        from raydist import log
        from raydist.records import Run
        from raydist.reranking.apply import query_splits, rerank

        spec = self._config.reranking
        store = self._texts or texts
        assert store is not None  # checked when the pipeline was made
        run = run.top(spec.depth) if spec.depth else run
        by_id = {query.query_id: query.text for query in queries}
        tables = []
        with contextlib.ExitStack() as stack:
            progress = log.Progress("rerank", total=len(run), unit="pair")
            if len(run) > _PAIRS:
                stack.enter_context(progress)
            for split in query_splits(run, _PAIRS):
                part = Run.of_checked(run.table.slice(split["first"], split["size"]))
                new = rerank(part, self._reranker, store, by_id, missing=spec.missing)
                tables.append(new.table)
                if len(run) > _PAIRS:
                    progress.advance(split["size"])
        return Run.of_checked(pa.concat_tables(tables)) if tables else run

    def identity(self) -> Any:
        """Returns JSON that tells its results from others."""
        from raydist.config.base import identity
        from raydist.config.inputs import inputs

        spec = self._config.reranking
        models = [str(c) for n, c in inputs(self._config).items() if n.startswith("reranker")]
        settings = {"depth": spec.depth, "missing": spec.missing, "texts": self._texts_identity}
        return {"reranker": identity(self._config.reranker), "models": models, **settings}

    def served(self) -> dict[str, Any]:
        """Returns the keys of `serve` that answer the same."""
        from raydist.config.base import resolved

        return {"reranker": resolved(self._config.reranker)}

    def __repr__(self) -> str:
        spec = self._config.reranker
        depth = self._config.reranking.depth
        name = getattr(spec, "model", spec.kind)
        return f"rerank({name!r}{f', depth={depth}' if depth else ''})"
