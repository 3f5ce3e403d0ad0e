"""Shards as objects of this process; whatever they are asked, and answer, travels as bytes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any


class Here:
    """A group of shards, one call at a time as in an actor."""

    def __init__(self, makers: Sequence[Callable[[], Any]]) -> None:
        self.makers = [_sent(make) for make in makers]
        self.objects = [make() for make in self.makers]
        self._lock = Lock()

    def ask(self, method: str, arguments: Sequence[Sequence[Any] | None]) -> list[Any]:
        with self._lock:
            return [
                None if values is None else self.call(number, method, values)
                for number, values in enumerate(arguments)
            ]

    def call(self, number: int, method: str, values: Sequence[Any]) -> Any:
        return _sent(getattr(self.objects[number], method)(*_sent(list(values))))


class Lost(Here):
    """A group whose shards are lost and opened again before each call."""

    def call(self, number: int, method: str, values: Sequence[Any]) -> Any:
        self.objects[number] = self.makers[number]()
        return super().call(number, method, values)


def _sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own
