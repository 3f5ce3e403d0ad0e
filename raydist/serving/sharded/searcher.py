"""The searcher of a service whose indexes are shared by replicas; it follows their generations.

A search runs on the generation of each index that was the present one when it began. A newer one is
opened by all replicas first, and only then becomes the present one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event, Lock, Thread
from typing import Any

from raydist import storage
from raydist.bow.sharded.plan import HEADERS, Launch
from raydist.errors import RaydistError
from raydist.manifest import read_manifest
from raydist.serving.backend import SearchAnswer, SearchCall, SnippetCall
from raydist.serving.errors import ServiceError, not_ready
from raydist.serving.search import Searcher
from raydist.serving.sharded.calls import REQUEST, Request
from raydist.serving.sharded.group import Generation, Outdated, ShardGroup, ShardMetrics
from raydist.text.passages import Passage

_LOG = logging.getLogger("raydist.access")
_TRIES = 3
"""Generations that a request may meet while writers replace them."""

Open = Callable[[Callable[[str], Launch]], Searcher]
"""Opens all indexes; its argument returns what opens the shards of a folder."""


@dataclass(frozen=True, slots=True)
class _Present:
    """The opened generation of each index.

    Attributes:
        manifests: of the folders, in order.
        searcher: searches them.
        generations: of the shards.
    """

    manifests: Sequence[Mapping[str, Any]]
    searcher: Searcher
    generations: Sequence[Generation]

    def share_without(self, missed: set[int]) -> float:
        """Returns the share of the documents that the other shards have."""
        sizes = [sum(each) for each in zip(*(g.documents for g in self.generations))]
        lost = sum(size for shard, size in enumerate(sizes) if shard in missed)
        return 1.0 - float(lost / max(sum(sizes), 1))


class ShardedSearcher:
    """Searches the shards of all indexes of a service; calls come from threads.

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
        self._folders = folders
        self._open = open
        self._group = group
        self._metrics = metrics
        self._looking = Lock()
        self._ended = Event()
        self._keys: set[str] = set()
        """Of the present generations."""
        self._present = self._opened()

    def search(self, call: SearchCall) -> SearchAnswer:
        """Returns at most `depth` hits, best first; see `Searcher.search`.

        Raises:
            ServiceError: 422 no filter of the indexes, 503 a shard is lost, 504 too late.
        """
        for _ in range(_TRIES):
            present, request = self._present, Request(call.timeout_s, call.partial)
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
        return self._present.searcher.snippets(call)

    def look(self) -> bool:
        """Switches to newer generations, if there are any; returns whether it did."""
        with self._looking:
            if self._manifests() == self._present.manifests:
                return False
            before, self._present = self._present, self._opened()
            self._forget(before.generations)
            return True

    def watch(self, every_s: float) -> None:
        """Looks again and again, until `close`."""
        if every_s:
            Thread(target=self._watch, args=(every_s,), name="generations", daemon=True).start()

    def close(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def _watch(self, every_s: float) -> None:
        while not self._ended.wait(every_s * random.uniform(0.5, 1.5)):
            try:
                if self.look():
                    _log("reloaded")
            except (RaydistError, ServiceError, Outdated, OSError) as error:
                _log("kept", error)

    def _renew(self, outdated: _Present) -> None:
        """Switches to newer generations; raises ServiceError 503 where there are none."""
        try:
            if self._present is outdated and not self.look() and self._present is outdated:
                raise not_ready("a shard was lost and cannot be opened again; the log has why")
        except RaydistError as error:
            _log("kept", error)
            raise not_ready("the index is being replaced; try again") from error

    def _forget(self, generations: Sequence[Generation]) -> None:
        """Lets generations go that are not present ones."""
        for each in generations:
            if each.key not in self._keys:
                self._group.forget(each.key)

    def _manifests(self) -> list[dict[str, Any]]:
        return [read_manifest(storage.local(each, HEADERS)) for each in self._folders]

    def _opened(self) -> _Present:
        generations: list[Generation] = []

        def launch(folder: str, makers: Sequence[Callable[[], Any]]) -> Generation:
            generations.append(self._group.open(folder, makers))
            return generations[-1]

        # One that comes in between is seen at the next look.
        manifests = self._manifests()
        with contextlib.ExitStack() as undo:
            undo.callback(self._forget, generations)
            searcher = self._open(lambda folder: partial(launch, folder))
            undo.pop_all()
        self._keys = {each.key for each in generations}
        if self._metrics is not None:
            for shard, sizes in enumerate(zip(*(each.documents for each in generations))):
                self._metrics.searched(shard, sum(sizes))
        return _Present(manifests, searcher, generations)


def _log(event: str, error: BaseException | None = None) -> None:
    facts = {} if error is None else {"error": " ".join(str(error).split())[:300]}
    _LOG.info(json.dumps({"event": event, "model": "index", **facts}))
