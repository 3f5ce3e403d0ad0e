"""A model that follows its place: a newer one is loaded beside it, tried, and then used.

The place is a local folder, whose content counts, or a registered model (`models:/NAME@champion`),
whose version counts. Requests go on with the present model until the newer one has scored a known
pair; those under way end with the model they began with. A newer one that does not work is
reported and left alone until it changes again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from raydist.errors import ConfigError, RaydistError

T = TypeVar("T")
_LOG = logging.getLogger("raydist.access")
_PAUSE_S = 1.0
"""Seconds in which a changed folder must not change again to be taken for complete."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model lies now.

    Attributes:
        model: folder, URI or hub name.
        version: the registry's, or a fingerprint of the folder; empty where neither is known.
    """

    model: str
    version: str = ""


def locate(model: str, registry: str) -> Place:
    """Returns where a model lies now.

    Args:
        model: folder, training run, URI, hub name, or `models:/NAME@ALIAS`.
        registry: MLflow's URI, for the last; may be empty otherwise.

    Raises:
        RaydistError: there is no such model, or MLflow cannot be reached.
    """
    from raydist.evaluation.registry import REGISTERED, registered

    if model.startswith(REGISTERED):
        if not registry:
            raise ConfigError(f"{model}: registry=none has no models; name an MLflow URI")
        return Place(*registered(model, registry))
    if not Path(model).is_dir():
        return Place(model)
    from raydist.fingerprints import model_fingerprint
    from raydist.models.backbone import resolve_folder

    return Place(model, model_fingerprint(resolve_folder(model)))


class Following(Generic[T]):
    """The present model of a place.

    Args:
        name: how the log names the model.
        place: says where the model lies now; called in a thread.
        load: loads it; called in a thread.
        check: raises if a loaded model does not work.
        retire: ends a model that is no longer used, after what it has under way.
        every_s: seconds between looks, on average; 0 never looks.
    """

    def __init__(
        self,
        name: str,
        place: Callable[[], Place],
        load: Callable[[Place], T],
        *,
        check: Callable[[T], Awaitable[None]],
        retire: Callable[[T], None],
        every_s: float = 0.0,
    ) -> None:
        self.name = name
        self._place, self._load, self._check, self._retire = place, load, check, retire
        self.every_s = every_s
        self.at = place()
        self.model = load(self.at)
        self._failed = ""
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look, once; needs a running event loop."""
        if self.every_s and self.at.version and self._watch is None:
            self._watch = asyncio.create_task(self._looking())

    async def _looking(self) -> None:
        while True:  # replicas look at different times, so that not all load at once
            await asyncio.sleep(self.every_s * random.uniform(0.5, 1.5))
            looked = asyncio.create_task(self.look())
            await asyncio.wait([looked])
            if (problem := looked.exception()) is not None:  # whatever it is: it looks again
                self._say("looked", now="", error=problem)

    async def look(self) -> bool:
        """Takes over a newer model, if there is one that works; returns whether it did."""
        try:
            now = await asyncio.to_thread(self._place)
            if now.version in (self.at.version, self._failed):
                return False
            await asyncio.sleep(_PAUSE_S)
            if now != await asyncio.to_thread(self._place):
                return False
        except (RaydistError, OSError) as error:  # gone for a moment, or no registry: next time
            self._say("looked", now="", error=error)
            return False
        begun = time.monotonic()
        trial = asyncio.create_task(self._try(now))
        await asyncio.wait([trial])
        problem = trial.exception()
        if problem is not None:
            self._failed = now.version
            self._say("kept", now=now.version, error=problem)
            return False
        before, older = self.at, self.model
        self.at, self.model = now, trial.result()
        seconds = round(time.monotonic() - begun, 1)
        self._say("reloaded", now=now.version, before=before.version, seconds=seconds)
        await asyncio.to_thread(self._retire, older)
        return True

    async def _try(self, place: Place) -> T:
        newer = await asyncio.to_thread(self._load, place)
        await self._check(newer)
        return newer

    def _say(self, event: str, *, error: BaseException | None = None, **facts: Any) -> None:
        if error is not None:
            facts["error"] = " ".join(str(error).split())[:300]
        _LOG.info(json.dumps({"event": event, "model": self.name, **facts}))
