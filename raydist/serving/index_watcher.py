"""The present generation of served indexes: a newer one is opened beside it, then searched.

Whoever searches takes the present one once, and ends with it; so a search never mixes two.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from typing import Any, Generic, TypeVar

from raydist import storage
from raydist.bow.sharded.plan import HEADERS
from raydist.errors import RaydistError
from raydist.manifest import read_manifest
from raydist.serving.errors import ServiceError

T = TypeVar("T")
_LOG = logging.getLogger("raydist.access")


class IndexWatcher(Generic[T]):
    """What has opened the newest generation of each index; its methods come from any threads.

    Attributes:
        present: what was opened last.

    Args:
        folders: the indexes.
        open: opens their newest generations.
        retire: lets an older one go, beside which the present one is.
    """

    def __init__(
        self,
        folders: Sequence[str],
        open: Callable[[], T],
        retire: Callable[[T, T], None] = lambda older, present: None,
    ) -> None:
        self._folders = folders
        self._open = open
        self._retire = retire
        self._looking = Lock()
        self._ended = Event()
        # A generation that comes in between is seen at the next look.
        self._manifests = self._newest()
        self.present = open()

    def look(self) -> bool:
        """Switches to newer generations, if there are any; returns whether it did.

        Raises:
            RaydistError, ServiceError, OSError: these cannot be opened; the present one stays.
        """
        with self._looking:
            newest = self._newest()
            if newest == self._manifests:
                return False
            older, self.present = self.present, self._open()
            self._manifests = newest
            self._retire(older, self.present)
            return True

    def watch(self, every_s: float) -> None:
        """Looks again and again, until `close`; 0 never looks."""
        if every_s:
            Thread(target=self._watch, args=(every_s,), name="generations", daemon=True).start()

    def close(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def _watch(self, every_s: float) -> None:
        while not self._ended.wait(every_s * random.uniform(0.5, 1.5)):
            try:
                if self.look():
                    log_generation("reloaded")
            except (RaydistError, ServiceError, OSError) as error:
                log_generation("kept", error)

    def _newest(self) -> list[dict[str, Any]]:
        return [read_manifest(storage.local(each, HEADERS)) for each in self._folders]


def log_generation(event: str, error: BaseException | None = None) -> None:
    """Logs a switch to another generation, or why there was none."""
    facts = {} if error is None else {"error": " ".join(str(error).split())[:300]}
    _LOG.info(json.dumps({"event": event, "model": "index", **facts}))
