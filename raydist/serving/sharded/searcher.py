"""The searcher of a service whose indexes are shared by replicas; it follows their generations.

A search runs on the generation of each index that was the present one when it began. A newer one is
opened by all replicas first, and only then becomes the present one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from raydist.bow.sharded.plan import Launch
from raydist.errors import RaydistError
from raydist.serving.backend import SearchAnswer, SearchCall, SnippetCall
from raydist.serving.errors import not_ready
from raydist.serving.index_watcher import IndexWatcher, log_generation
from raydist.serving.search import Searcher
from raydist.serving.sharded.calls import REQUEST, Request
from raydist.serving.sharded.group import Generation, Outdated, ShardGroup, ShardMetrics
from raydist.text.passages import Passage

_TRIES = 3
"""Generations that a request may meet while writers replace them."""

Open = Callable[[Callable[[str], Launch]], Searcher]
"""Opens all indexes; its argument returns what opens the shards of a folder."""


@dataclass(frozen=True, slots=True)
class _Present:
    """The opened generation of each index.

    Attributes:
        searcher: searches them.
        generations: of the shards.
    """

    searcher: Searcher
    generations: Sequence[Generation]

    def share_without(self, missed: set[int]) -> float:
        """Returns the share of the documents that the other shards have."""
        sizes = [sum(each) for each in zip(*(g.documents for g in self.generations))]
        lost = sum(size for shard, size in enumerate(sizes) if shard in missed)
        return 1.0 - float(lost / max(sum(sizes), 1))


class ShardedSearcher:
    """Searches the shards of all indexes of a service; calls come from threads.

    Attributes:
        watcher: has the present generations.

    Args:
        folders: the indexes.
        open: opens their newest generations.
        group: the shards.
        metrics: counters, if any.
    """

    def __init__(
        self,
        folders: Sequence[str],
        open: Open,
        group: ShardGroup,
        metrics: ShardMetrics | None = None,
    ) -> None:
        self._open = open
        self._group = group
        self._metrics = metrics
        self._keys: set[str] = set()
        """Of the present generations."""
        self.watcher = IndexWatcher(
            folders, self._opened, lambda older, _: self._forget(older.generations)
        )

    def search(self, call: SearchCall) -> SearchAnswer:
        """Returns at most `depth` hits, best first; see `Searcher.search`.

        Raises:
            ServiceError: 422 no filter of the indexes, 503 a shard is lost, 504 too late.
        """
        for _ in range(_TRIES):
            present, request = self.watcher.present, Request(call.timeout_s, call.partial)
            token = REQUEST.set(request)
            try:
                answer = present.searcher.search(call)
            except Outdated:
                pass
            else:
                return replace(answer, searched=present.share_without(request.missed))
            finally:
                REQUEST.reset(token)
            self._renew(present)
        raise not_ready("the index is being replaced; try again")

    def snippets(self, call: SnippetCall) -> list[list[Passage]]:
        """Returns the passages of each text that match best."""
        return self.watcher.present.searcher.snippets(call)

    def _renew(self, outdated: _Present) -> None:
        """Switches to newer generations; raises ServiceError 503 where there are none."""
        try:
            is_present = self.watcher.present is outdated
            if is_present and not self.watcher.look() and self.watcher.present is outdated:
                raise not_ready("a shard was lost and cannot be opened again; the log has why")
        except RaydistError as error:
            log_generation("kept", error)
            raise not_ready("the index is being replaced; try again") from error

    def _forget(self, generations: Sequence[Generation]) -> None:
        """Lets generations go that are not present ones."""
        for each in generations:
            if each.key not in self._keys:
                self._group.forget(each.key)

    def _opened(self) -> _Present:
        generations: list[Generation] = []

        def launch(folder: str, makers: Sequence[Callable[[], Any]]) -> Generation:
            generations.append(self._group.open(folder, makers))
            return generations[-1]

        with contextlib.ExitStack() as undo:
            undo.callback(self._forget, generations)
            try:
                searcher = self._open(lambda folder: partial(launch, folder))
            except Outdated as error:  # replaced while it was opened
                raise not_ready(f"the index is being replaced; try again ({error})") from error
            undo.pop_all()
        self._keys = {each.key for each in generations}
        if self._metrics is not None:
            for shard, sizes in enumerate(zip(*(each.documents for each in generations))):
                self._metrics.searched(shard, sum(sizes))
        return _Present(searcher, generations)
