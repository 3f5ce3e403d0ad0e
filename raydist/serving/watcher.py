"""A model that follows its folder or its registry: a newer one is loaded beside it, then used.

The content of a local folder counts, or the version of a registered model
(`models:/NAME@champion`). Requests keep the present model until the newer one has scored a known
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
from typing import Generic, TypeVar

from raydist.errors import ConfigError, RaydistError

T = TypeVar("T")
_LOG = logging.getLogger("raydist.access")
_SETTLE_S = 1.0
"""Seconds for which a changed folder must rest to count as complete."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """The present version of a model.

    Attributes:
        model: folder, URI or hub name.
        name: the registry's version, or a fingerprint of the folder; empty where neither is known.
    """

    model: str
    name: str = ""


def locate(model: str, registry: str) -> ModelVersion:
    """Returns the present version of a model.

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
        return ModelVersion(*registered(model, registry))
    if not Path(model).is_dir():
        return ModelVersion(model)
    from raydist.fingerprints import model_fingerprint
    from raydist.models.backbone import resolve_folder

    return ModelVersion(model, model_fingerprint(resolve_folder(model)))


class ModelWatcher(Generic[T]):
    """The present model behind a name.

    Args:
        name: the model's name in the log.
        locate: returns the present version; called in a thread.
        load: loads it; called in a thread.
        check: raises if a loaded model does not work.
        retire: closes a model that is no longer used, after its requests under way.
        every_s: seconds between looks, on average; 0 never looks.
    """

    def __init__(
        self,
        name: str,
        locate: Callable[[], ModelVersion],
        load: Callable[[ModelVersion], T],
        *,
        check: Callable[[T], Awaitable[None]],
        retire: Callable[[T], None],
        every_s: float = 0.0,
    ) -> None:
        self.name = name
        self._locate, self._load, self._check, self._retire = locate, load, check, retire
        self.every_s = every_s
        self.version = locate()
        self.model = load(self.version)
        self._failed = ""
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the watch, once; needs a running event loop."""
        if self.every_s and self.version.name and self._watch is None:
            self._watch = asyncio.create_task(self._look_forever())

    async def _look_forever(self) -> None:
        while True:  # replicas look at different times, so that not all load at once
            await asyncio.sleep(self.every_s * random.uniform(0.5, 1.5))
            look = asyncio.create_task(self.look())
            await asyncio.wait([look])
            if (error := look.exception()) is not None:  # whatever it is, the watch continues
                self._log("looked", now="", error=error)

    async def look(self) -> bool:
        """Switches to a newer model, if there is one that works; returns whether it did."""
        try:
            now = await asyncio.to_thread(self._locate)
            if now.name in (self.version.name, self._failed):
                return False
            await asyncio.sleep(_SETTLE_S)
            if now != await asyncio.to_thread(self._locate):
                return False
        except (RaydistError, OSError) as error:  # gone for a moment, or no registry: next time
            self._log("looked", now="", error=error)
            return False
        start = time.monotonic()
        loading = asyncio.create_task(self._load_and_check(now))
        await asyncio.wait([loading])
        error_ = loading.exception()
        if error_ is not None:
            self._failed = now.name
            self._log("kept", now=now.name, error=error_)
            return False
        before, older = self.version, self.model
        self.version, self.model = now, loading.result()
        seconds = round(time.monotonic() - start, 1)
        self._log("reloaded", now=now.name, before=before.name, seconds=seconds)
        await asyncio.to_thread(self._retire, older)
        return True

    async def _load_and_check(self, version: ModelVersion) -> T:
        model = await asyncio.to_thread(self._load, version)
        await self._check(model)
        return model

    def _log(self, event: str, *, error: BaseException | None = None, **facts: object) -> None:
        if error is not None:
            facts["error"] = " ".join(str(error).split())[:300]
        _LOG.info(json.dumps({"event": event, "model": self.name, **facts}))
