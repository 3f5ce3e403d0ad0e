"""The search of an index or of vectors, as a stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from raydist.api.stages import Pipeline
from raydist.errors import ConfigError

if TYPE_CHECKING:
    from raydist.api.feedback import Expansion
    from raydist.config.search import SearchConfig
    from raydist.protocols import Selective, TextStore
    from raydist.records import Query
    from raydist.records import Run as AnyRun
    from raydist.text.analyzer import Analyzer


class FolderSearch:
    """The search of an index or of vectors as the first stage of a pipeline."""

    def __init__(self, config: SearchConfig, name: str, has_words: bool, more: str = "") -> None:
        self._config = config
        self._more = more
        self._name = name
        self._has_words = has_words

    @cached_property
    def _retriever(self) -> Selective:
        from raydist.build import check_used, compile_search, manifest_of, open_retriever

        config = self._config
        manifest = manifest_of(config.index[0])
        check_used([manifest], config.bow, config.dense, config.late)
        compile_search([manifest], config.bow)
        return open_retriever(config.index[0], config.bow, config.dense, config.late)

    @property
    def texts(self) -> TextStore | None:
        """The documents' texts, if the index has them."""
        return self._retriever.index.store if self._has_words else None  # type: ignore[attr-defined]

    @property
    def analyzer(self) -> Analyzer | None:
        """What makes terms of texts, for a bag-of-words index."""
        return self._retriever.index.analyzer if self._has_words else None  # type: ignore[attr-defined]

    def search(self, queries: Sequence[Query], k: int) -> AnyRun:
        """Returns the best `k` documents of each query."""
        if self._config.by is None:
            return self._retriever.search(queries, k)
        from raydist.dense.by_document import rank_documents, sizes_of

        retriever, by = self._retriever, self._config.by
        sizes = sizes_of(retriever, by)
        return rank_documents(retriever.search, queries, k, by=by, sizes=sizes)

    def expanded(self, expansion: Expansion) -> FolderSearch | None:
        """Returns this search with expanded queries; None if that cannot be.

        Raises:
            ConfigError: the index has no texts, or its search does not go with the model.
        """
        if not self._has_words or self._config.bow.feedback is not None:
            return None
        config = self._config.model_copy(update={"feedback": expansion.feedback})
        search = FolderSearch(config, self._name, True, f" >> {expansion!r}")
        assert search._retriever  # what the model lacks is said now
        return search

    def identity(self) -> Any:
        """Returns JSON that tells its results from others."""
        from raydist.config.inputs import inputs

        contents = {name: str(each) for name, each in inputs(self._config).items()}
        return {"search": self._config.identity(), "inputs": contents}

    def served(self) -> dict[str, Any]:
        """Returns the keys of `serve` that answer the same."""
        from raydist.config.base import resolved

        if self._config.by is not None:
            raise ConfigError(f"{self!r}: a service takes by=document from its requests")
        keys: dict[str, Any] = {"index": list(self._config.index)}
        bow, dense = self._config.bow, self._config.dense
        if not self._has_words:
            if dense.approximate or dense.model is not None:
                raise ConfigError(f"{self!r}: a service searches vectors exactly, by their model")
            if dense.rescore_depth != 4:
                raise ConfigError(f"{self!r}: a service has rescore_depth=4")
            if bow.filter is not None:
                raise ConfigError(f"{self!r}: a service takes the filter from its requests")
            return keys
        if bow.feedback is not None:
            raise ConfigError(f"{self!r}: a service expands no queries")
        if bow.syntax != "terms":
            raise ConfigError(f"{self!r}: a service reads queries as words (syntax=terms)")
        if bow.filter is not None or bow.sort is not None:
            raise ConfigError(f"{self!r}: a service takes the filter from its requests; no sort")
        if bow.ties != "docid":
            raise ConfigError(f"{self!r}: a service orders equal scores by ties=docid")
        fields = {} if bow.fields is None else {"fields": dict(bow.fields)}
        return {**keys, "scoring": resolved(bow.scoring), **fields}

    def __repr__(self) -> str:
        return f"{self._name}({self._config.index[0]!r}){self._more}"


def search_of(folder: str, name: str, has_words: bool, **keys: Any) -> Pipeline:
    """Returns the search of a folder, with the keys of `search`.

    Raises:
        ConfigError: a value is not allowed.
    """
    from raydist.config.load import load
    from raydist.config.search import SearchConfig

    scoring = keys.get("scoring", {})
    moved = [each for each in ("fields", "filter", "sort") if each in scoring]
    keys |= {each: scoring.pop(each) for each in moved}
    config = load(SearchConfig, [{"index": [folder], **keys}])
    return Pipeline(FolderSearch(config, name, has_words))
