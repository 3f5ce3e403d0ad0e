"""What a search asks of the shards, and what they answer; all of it travels between processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol


class Opening(NamedTuple):
    """A shard's part of one generation of an index.

    Attributes:
        folder: of the index, or its URI.
        key: of the generation; the same for all shards.
        make: opens the part; may be called again.
    """

    folder: str
    key: str
    make: Callable[[], Any]


class Order(NamedTuple):
    """A call of a method of what a shard has opened.

    Attributes:
        key: of the generation that the search runs on.
        method: its name.
        arguments: its arguments.
        timeout_s: seconds after which the answer is of no use.
    """

    key: str
    method: str
    arguments: Sequence[Any]
    timeout_s: float


class Reply(NamedTuple):
    """What a shard answers.

    Attributes:
        outcome: `late` if the time had passed before the work began, `unopened` if the shard does
            not have the generation, `refused` for a user's mistake or an outdated generation.
        value: what the method returned.
        error: the class and message of a RaydistError.
    """

    outcome: Literal["done", "late", "unopened", "refused"] = "done"
    value: Any = None
    error: tuple[str, str] = ("", "")


class Replica(Protocol):
    """A process that has opened the parts of one shard; methods raise Lost."""

    async def open(self, opening: Opening, /) -> Reply:
        """Opens a part, once; answers how many documents it has."""
        ...

    async def ask(self, order: Order, /) -> Reply:
        """Calls a method."""
        ...

    async def beat(self) -> None:
        """Returns at once."""
        ...


class Lost(Exception):
    """The replica's process ended, or cannot be reached."""


@dataclass(slots=True)
class Request:
    """A client's request while its search runs.

    Attributes:
        timeout_s: seconds that it may take.
        partial: whether it is searched without the shards that are lost.
        missed: their numbers; a shard that was missed once is missed to the end.
        ends: when its time has passed, by the monotonic clock.
    """

    timeout_s: float
    partial: bool = False
    missed: set[int] = field(default_factory=set)
    ends: float = field(init=False)

    def __post_init__(self) -> None:
        self.ends = time.monotonic() + self.timeout_s


REQUEST: ContextVar[Request] = ContextVar("request")
"""The request for which the present thread searches."""
