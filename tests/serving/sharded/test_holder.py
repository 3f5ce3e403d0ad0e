"""What a replica of a shard holds: what it was told to open, and no older generation for long."""

from __future__ import annotations

import asyncio
from functools import partial

from raydist.errors import ArtifactError
from raydist.serving.sharded.calls import Opening, Order, Reply
from raydist.serving.sharded.holder import Holder


class Part:
    made = 0

    def __init__(self, name: str) -> None:
        if name == "gone":
            raise ArtifactError("it is gone")
        self.name = name
        Part.made += 1

    def documents(self) -> int:
        return 7

    def called(self, word: str) -> str:
        return f"{self.name} {word}"


def opened(holder: Holder, folder: str, key: str) -> Reply:
    return asyncio.run(holder.open(Opening(folder, key, partial(Part, key))))


def asked(holder: Holder, key: str, timeout_s: float = 9.0) -> Reply:
    return asyncio.run(holder.ask(Order(key, "called", ("on",), timeout_s)))


def test_a_part_is_opened_once_and_called_by_its_key() -> None:
    holder = Holder(1)
    assert asked(holder, "a") == Reply("unopened")
    before = Part.made
    assert opened(holder, "IDX", "a") == opened(holder, "IDX", "a") == Reply("done", 7)
    assert Part.made == before + 1
    assert asked(holder, "a") == Reply("done", "a on")
    assert asked(holder, "a", -1.0) == Reply("late")
    assert opened(holder, "IDX", "gone") == Reply("refused", error=("ArtifactError", "it is gone"))


def test_older_generations_are_closed_once_nobody_asks_for_them() -> None:
    holder = Holder(1, rested_s=0.0)
    for folder, key in (("IDX", "a"), ("IDX", "b"), ("VEC", "v")):
        opened(holder, folder, key)
    holder.tidy()
    assert [asked(holder, key).outcome for key in "abv"] == ["unopened", "done", "done"]
    patient = Holder(1)
    opened(patient, "IDX", "a")
    opened(patient, "IDX", "b")
    patient.tidy()
    assert asked(patient, "a").outcome == "done"
