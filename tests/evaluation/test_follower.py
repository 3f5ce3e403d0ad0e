"""What is sent once and only once, through a store that is down at times."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raydist.evaluation.follower import Follower, State, Value
from raydist.evaluation.mirror import METRICS, Mirror


class Lists:
    """A store that keeps what it is sent, or is down."""

    def __init__(self) -> None:
        self.down = False
        self.taken: list[Value] = []
        self.tagged: dict[str, str] = {}

    def values(self, values: Sequence[Value]) -> None:
        if self.down:
            raise OSError("down")
        self.taken += values

    def tags(self, tags: Mapping[str, str]) -> None:
        if self.down:
            raise OSError("down")
        self.tagged |= tags

    def params(self, params: Mapping[str, Any]) -> None: ...

    def artifact(self, path: str, folder: str) -> None: ...

    def text(self, content: str, file: str) -> None: ...

    def dataset(self, record: Mapping[str, Any]) -> None: ...

    def table(self, columns: Mapping[str, list[Any]], file: str) -> None: ...

    def model(self, record: Mapping[str, Any], superseded: Sequence[str]) -> str:
        return "1"

    def end(self, status: str, time_ms: int) -> None: ...


def test_an_outage_changes_no_count_and_loses_no_name(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    for step in range(3):
        mirror.step(step, {"loss": float("nan"), "a@b": 1.0, "a_at_b": 2.0})
    store = Lists()
    follower = Follower(tmp_path, store, State(), 1)
    store.down = True
    for _ in range(5):
        assert not follower.flush()
    store.down = False
    assert follower.flush() and follower.flush()
    assert follower.state.skipped == 3 and len(store.taken) == 6
    assert {value.name for value in store.taken} == {"train/a_at_b", "train/a_at_b_2"}
    assert store.tagged == {"metric.train/a_at_b_2": "train/a_at_b"}


def test_the_machines_load_is_a_group_of_its_own_with_its_own_numbers(tmp_path: Path) -> None:
    Mirror(tmp_path).system(3, {"cpu_utilization_percentage": 50.0})
    Mirror(tmp_path, resume_step=1)  # a resumed run cuts steps, not samples
    store = Lists()
    assert Follower(tmp_path, store, State(), 1).flush()
    assert [value[:3] for value in store.taken] == [("system/cpu_utilization_percentage", 50.0, 3)]


def test_a_record_that_is_rewritten_while_it_is_sent_is_sent_from_its_beginning(
    tmp_path: Path,
) -> None:
    class Rewritten(Lists):
        def values(self, values: Sequence[Value]) -> None:
            super().values(values)
            if len(self.taken) == 2:  # as a resumed run does, which cuts its record
                Mirror(tmp_path / "new").step(7, {"loss": 7.0})
                os.replace(tmp_path / "new" / METRICS, tmp_path / METRICS)

    mirror = Mirror(tmp_path)
    for step in range(2):
        mirror.step(step, {"loss": float(step)})
    store = Rewritten()
    assert Follower(tmp_path, store, State(), 1).flush()
    assert [value.step for value in store.taken] == [0, 1, 7]
