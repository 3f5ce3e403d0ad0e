"""Several processes write and read one index at once, and are killed at random.

They append, update, delete and merge. Every acknowledged document is there, every refused one is
not, and every search equals some generation: its answer is the whole of what some manifest held.
The same on an object store, and on a disk that is full every other second. `RAYDIST_SECONDS` is how
long the slow test takes for each place.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WRITER = """
import json, os, random, sys, time
from pathlib import Path

folder, number, log = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
from raydist.cli import main

def note(**facts):
    with open(log, "a") as out:
        out.write(json.dumps(facts) + "\\n")
        out.flush()
        os.fsync(out.fileno())

serial = int(time.time() * 1000)
alive = {}  # acknowledged batches that no later write has touched, in whatever way it ended
for event in [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []:
    if event["verb"] == "merge":
        continue
    if event["end"] is None:
        alive.pop(tuple(event["ids"]), None)
    elif event["end"] == 0 and event["verb"] != "delete":
        alive[tuple(event["ids"])] = event["edition"]
rng = random.Random(serial)
while True:
    serial += 1
    verb = rng.choice(["append", "append", "update", "delete", "merge"])
    if len(alive) > 8:
        verb = "delete"
    elif not alive and verb != "merge":
        verb = "append"
    edition = serial
    if verb == "append":
        ids = [f"w{number}-{serial}-{i}" for i in range(3)]
    else:
        ids = list(rng.choice(list(alive))) if alive and verb != "merge" else []
    path = log.with_suffix(f".{serial}.txt")
    if verb == "merge":
        words = ["merge", f"segments={rng.choice([1, 2])}"]
    elif verb == "delete":
        path.write_text("".join(f"{i}\\n" for i in ids))
        words = ["index", f"delete={path}"]
    else:
        rows = [json.dumps({"id": i, "text": f"common word {i} {edition}"}) for i in ids]
        path.write_text("\\n".join(rows))
        words = ["index", f"corpus={path}", "corpus.format=jsonl", "--append"]
        words += ["duplicates=last"] if verb == "update" else []
    note(verb=verb, ids=ids, edition=edition, end=None)
    old = alive.pop(tuple(ids), None)
    code = main([*words, f"out={folder}", "lock_wait=120"])
    note(verb=verb, ids=ids, edition=edition, end=code)
    path.unlink(missing_ok=True)
    if code == 0 and verb in ("append", "update"):
        alive[tuple(ids)] = edition
    elif code and old is not None:
        alive[tuple(ids)] = old
"""

READER = """
import json, sys, time
from pathlib import Path
from raydist import storage
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.records import Query

folder, log = sys.argv[1], Path(sys.argv[2])
while True:
    index = BowIndex.open(storage.local(folder))
    time.sleep(0.2)  # while writers go on
    ids = index.doc_ids.to_pylist()
    run = BowRetriever(index).search([Query("q", "common")], 10_000)
    texts = [text.text.split() for text in index.store.get(ids)]
    assert sorted(run.table["doc_id"].to_pylist()) == sorted(ids) and len(set(ids)) == len(ids)
    assert [text[:3] for text in texts] == [["common", "word", i] for i in ids]
    with open(log, "a") as out:
        out.write(json.dumps({i: int(text[3]) for i, text in zip(ids, texts)}) + "\\n")
"""


def events(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line) for line in lines]


def check(folder: str, logs: list[Path], reads: list[Path]) -> tuple[int, int]:
    """Compares what is there with what was acknowledged; returns how much of it there was."""
    from raydist import storage
    from raydist.bow.index import BowIndex

    index = BowIndex.open(storage.local(folder), verify=True)
    assert index.store is not None
    ids = index.doc_ids.to_pylist()
    texts = [each.text for each in index.store.get(ids) if each is not None]
    final = {i: int(text.split()[3]) for i, text in zip(ids, texts, strict=True)}
    acknowledged = 0
    possible: dict[tuple[str, ...], set[int | None]] = {}  # editions of a batch, None: not there
    seen: dict[tuple[str, ...], set[int | None]] = {}
    for log in logs:
        for event in events(log):
            batch, end = tuple(event["ids"]), event["end"]
            acknowledged += end == 0
            if event["verb"] == "merge":
                continue
            now = None if event["verb"] == "delete" else event["edition"]
            before = possible.setdefault(batch, {None})
            seen.setdefault(batch, {None}).add(now)
            if end is None:
                possible[batch] = before | {now}
            elif end == 0:
                possible[batch] = {now}
            else:
                possible[batch] = before - {now}
    for batch, editions in possible.items():
        assert whole(batch, final) in editions, (batch, editions, [final.get(i) for i in batch])
    searches = 0
    for path in reads:
        for answer in events(path):
            searches += 1
            assert "base" in answer
            for batch, editions in seen.items():
                assert whole(batch, answer) in editions, batch
    return acknowledged, searches


def whole(batch: tuple[str, ...], answer: dict[str, Any]) -> int | None:
    """Returns the edition of a batch, which is added, updated and deleted as a whole."""
    editions = {answer.get(i) for i in batch}
    assert len(editions) == 1, (batch, editions)
    edition: int | None = editions.pop()
    return edition


def play(folder: str, tmp_path: Path, seconds: float, seed: int, disk: Path | None = None) -> None:
    rng, writers = random.Random(seed), 4
    (tmp_path / "base.jsonl").write_text(json.dumps({"id": "base", "text": "common word base 0"}))
    start = [sys.executable, "-m", "raydist", "index", f"corpus={tmp_path}/base.jsonl"]
    subprocess.run([*start, f"out={folder}"], check=True, stderr=subprocess.DEVNULL)
    logs = [tmp_path / f"writer{i}.log" for i in range(writers)]
    reads = [tmp_path / f"reader{i}.log" for i in range(2)]
    errors = [tmp_path / f"errors{i}.txt" for i in range(writers + 2)]

    # Each machine has its own copies, but compiling the kernels again would take minutes.
    cache = Path(os.environ.get("RAYDIST_CACHE") or Path.home() / ".cache/raydist")
    kernels = os.environ.get("NUMBA_CACHE_DIR") or str(cache / "kernels")

    def launch(number: int) -> subprocess.Popen[bytes]:
        copies = str(tmp_path / f"cache{number % 3}")
        machine = {**os.environ, "RAYDIST_CACHE": copies, "NUMBA_CACHE_DIR": kernels}
        if number < writers:
            words = [WRITER, folder, str(number), str(logs[number])]
        else:
            words = [READER, folder, str(reads[number - writers])]
        with open(errors[number], "w") as out:
            return subprocess.Popen([sys.executable, "-c", *words], env=machine, stderr=out)

    processes = [launch(i) for i in range(writers + 2)]
    killed, end = 0, time.monotonic() + seconds
    filling = contextlib.nullcontext() if disk is None else filling_up(disk, seed)
    try:
        with filling:
            while time.monotonic() < end or killed < 3 or not all(map(events, reads)):
                victim, patience = rng.randrange(writers), time.monotonic() + 60
                before = len(events(logs[victim]))
                while len(events(logs[victim])) < before + 3 and time.monotonic() < patience:
                    time.sleep(0.1)  # starting takes long: one write at least is acknowledged
                time.sleep(rng.uniform(0, 1.5))
                for process, path in zip(processes, errors):
                    assert process.poll() is None, path.read_text()[-3000:]
                processes[victim].kill()
                processes[victim].wait()
                killed += 1
                processes[victim] = launch(victim)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    # The last words: one more writer finds what the killed ones left, and removes it.
    (tmp_path / "last.jsonl").write_text(json.dumps({"id": "last", "text": "common word last 0"}))
    words = [sys.executable, "-m", "raydist", "index", f"corpus={tmp_path}/last.jsonl", "--append"]
    subprocess.run([*words, f"out={folder}", "lock_wait=120"], check=True)
    acknowledged, searches = check(folder, logs, reads)
    print(f"{acknowledged} writes acknowledged, {searches} searches, {killed} processes killed")
    assert acknowledged > 0 and searches > 0
    if "://" not in folder:
        assert leftovers(Path(folder)) == set()


def leftovers(folder: Path) -> set[str]:
    """Returns what the folder holds that neither the manifest nor a store that it names does."""
    named = "".join(
        path.read_text() for path in (*folder.glob("*/store.json"), folder / "manifest.json")
    )
    inside = {path.name for part in ("segments", "deletions") for path in folder.glob(f"{part}/*")}
    beside = {path.name for path in folder.iterdir()}
    beside -= {"config.json", "manifest.json", "segments", "deletions"}
    return {name for name in inside | beside if name not in named}


@contextlib.contextmanager
def filling_up(disk: Path, seed: int) -> Iterator[None]:
    """Fills a disk but for a few pages, and makes room again, until the block ends."""
    ended, rng, ballast = threading.Event(), random.Random(seed), disk / "ballast"

    def fill() -> None:
        while not ended.wait(rng.uniform(0.5, 2)):
            status = os.statvfs(disk)
            free = status.f_bavail * status.f_frsize - rng.randrange(0, 200 << 10)
            with contextlib.suppress(OSError), open(ballast, "wb") as out:
                os.posix_fallocate(out.fileno(), 0, max(1, free))
            ended.wait(rng.uniform(0.2, 2))
            ballast.unlink()

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        ballast.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "s3", "full"])
def test_six_processes_for_five_minutes(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seconds = float(os.environ.get("RAYDIST_SECONDS", "300"))
    if place != "full":
        bucket = request.getfixturevalue("s3") if place == "s3" else str(tmp_path)
        play(f"{bucket}/idx", tmp_path, seconds, 2)
        return
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        play(f"{disk}/idx", tmp_path, seconds, 2, disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
