"""A lease on a remote output: a small object that says who writes, renewed while it does.

A holder that is killed lets its lease run out, or is found dead by another process of its machine.
The clocks of the machines are compared, so they must agree to some seconds; should two writers
believe in a lease at once, the condition under which the manifest is put still refuses one.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time

from raydist import log
from raydist.errors import JobError
from raydist.locks import Holder, busy
from raydist.stores.objects import ChangedError, Entry, Objects

TERM = 60.0
"""Seconds for which a lease holds unless it is renewed."""

_POLL = 0.5  # seconds between looks at another's lease


class Lease:
    """Held from `with` on; `check` raises once it is lost.

    Args:
        objects: of the folder in which the output lies.
        name: the output's, in there.
        wait: seconds to wait for another holder.

    Raises:
        JobError: another process still holds it after `wait`.
    """

    def __init__(self, objects: Objects, name: str, wait: float) -> None:
        self._objects = objects
        self._name = f".{name}.lease.json"
        self._output = f"{objects.uri}/{name}"
        self._wait = wait
        self._holder = Holder.here()
        self._entry: Entry | None = None
        self._until = 0.0
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")

    def __enter__(self) -> Lease:
        deadline, announced = time.monotonic() + self._wait, False
        while not self._take():
            holder = self._owner() or "another process"
            if time.monotonic() >= deadline:
                raise busy(self._output, holder, self._wait)
            if not announced:
                log.say(
                    f"{self._output}: waiting up to {log.duration(self._wait)} for {holder}; "
                    f"its lease runs out {TERM:.0f} s after it stops"
                )
                announced = True
            time.sleep(_POLL)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        # Only while nobody else can have taken it over: a store deletes without conditions.
        if not self._lost and time.time() < self._until - TERM / 4:
            with contextlib.suppress(JobError):
                self._objects.delete([self._name])

    def check(self) -> None:
        """Raises JobError if another process may write by now."""
        if self._lost or time.time() >= self._until:
            holder = self._owner()
            raise JobError(
                f"{self._output}: this command lost its lease"
                + (f" to {holder}" if holder else ": the object store did not answer for a minute")
                + "; nothing of it was published; run it again"
            )

    def _take(self) -> bool:
        """Creates the lease, or takes over one that has run out."""
        current = self._objects.read(self._name)
        if current is not None and self._is_valid(current[0]):
            return False
        return self._write(current[1] if current else None)

    def _write(self, old: Entry | None) -> bool:
        until = time.time() + TERM
        data = json.dumps({**self._holder.to_dict(), "until": until}).encode()
        try:
            self._entry = self._objects.replace(self._name, data, old)
        except ChangedError:
            # A request that is repeated after a lost answer meets what it wrote itself.
            current = self._objects.read(self._name)
            if current is None or current[0] != data:
                return False
            self._entry = current[1]
        self._until = until
        return True

    def _keep(self) -> None:
        while not self._ended.wait(TERM / 4):
            try:
                if not self._write(self._entry):
                    self._lost = True
                    return
            except JobError:  # the store does not answer: it may again before the time is up
                continue

    @staticmethod
    def _is_valid(data: bytes) -> bool:
        try:
            record = json.loads(data)
            until = float(record["until"])
        except (ValueError, KeyError, TypeError):
            return False
        holder = Holder.read(record)
        return time.time() < until and not (holder is not None and holder.is_dead)

    def _owner(self) -> Holder | None:
        with contextlib.suppress(JobError, ValueError):
            current = self._objects.read(self._name)
            return Holder.read(json.loads(current[0])) if current else None
        return None
