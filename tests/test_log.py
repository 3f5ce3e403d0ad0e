"""What a user sees: progress lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raydist import log


def test_what_was_done_before_counts_as_done_but_not_towards_the_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    with log.Progress("train", 50, "step", done=30) as progress:
        now += 20.0
        progress.advance(10)
        now += 20.0
        progress.advance(10)
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "train: 40 of 50 steps, 0.5 steps/s, 20.0 s left"
    assert second == "train: 50 of 50 steps, 0.5 steps/s, 0.0 s left"
    assert last == "train: 50 of 50 steps, 0.5 steps/s, 40.0 s"


def test_where_the_total_is_unknown_the_share_tells_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    with log.Progress("merge", unit="posting", share_total=8.0) as progress:
        now += 10.0
        progress.advance(1000, nbytes=20_000_000, share=2.0)
    assert capsys.readouterr().err.splitlines() == [
        "merge: 1,000 postings, 100 postings/s, 2.0 MB/s, 30.0 s left",
        "merge: 1,000 postings, 100 postings/s, 2.0 MB/s, 10.0 s",
    ]


def test_one_of_something_is_in_the_singular(capsys: pytest.CaptureFixture[str]) -> None:
    with log.Progress("embedding") as progress:
        progress.advance()
    with log.Progress("search", 1, "query") as progress:
        progress.advance()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("embedding: 1 document, ")
    assert second.startswith("search: 1 of 1 query, ") and " queries/s, " in second


def test_a_tables_long_title_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    title = f"trained {'/a/long/way' * 12}/[model]"
    log.table(title, ["what", "value"], [("steps", 5)])
    assert capsys.readouterr().err.splitlines()[0] == title


def test_numbers_have_their_noun() -> None:
    assert log.count(1, "split") == "1 split"
    assert log.count(0, "query") == "0 queries" and log.count(1200, "id") == "1,200 ids"


def test_the_time_left_is_shown_once_it_means_something(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    monkeypatch.setattr(log, "_EVERY_S", 0.0)
    with log.Progress("train", 1000, "step") as progress:
        for seconds, steps in ((1.0, 1), (4.0, 1), (16.0, 6), (17.0, 92)):
            now = seconds
            progress.advance(steps)
    lines = capsys.readouterr().err.splitlines()[:-1]
    assert [line.endswith(" left") for line in lines] == [False, False, True, True]


def test_what_is_waited_for_is_a_line_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with log.Waiting("starting Ray") as waiting:
        waiting.say("connecting")
    assert capsys.readouterr().err == "starting Ray ...\n"


def test_what_other_programs_write_goes_to_a_file(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from raydist import log\n"
        "log.is_program = True\n"
        "log.divert(Path(sys.argv[1]))\n"
        "os.write(2, b'core_worker.cc: noise\\n')\n"
        "log.say('a message')\n"
        "print(log.diverted())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "a message\n"
    assert Path(done.stdout.strip()).read_text() == "core_worker.cc: noise\n"


def test_the_longer_of_two_paths_is_replaced_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_originals", {"in/corpus": "old", "/tmp/in/corpus": "new"})
    assert log.spoken("/tmp/in/corpus: bad") == "new: bad"
