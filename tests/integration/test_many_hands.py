"""Several processes write and read one index at once, and are killed at random.

Every acknowledged document is there, every refused one is not, and every search equals some
generation: its answer is the whole of what some manifest held. `RAYDIST_SECONDS` is how long the
slow test takes for each place.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

WRITER = """
import json, os, sys, time
from pathlib import Path

folder, number, log = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
from raydist.cli import main

def note(**facts):
    with open(log, "a") as out:
        out.write(json.dumps(facts) + "\\n")
        out.flush()
        os.fsync(out.fileno())

serial = int(time.time() * 1000)
mine = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
added = {i for f in mine if f["end"] == 0 and f["verb"] == "append" for i in f["ids"]}
alive = sorted(added - {i for f in mine if f["verb"] == "delete" for i in f["ids"]})
while True:
    serial += 1
    if len(alive) > 8:
        verb, ids = "delete", alive[:3]
        path = log.with_suffix(f".{serial}.ids")
        path.write_text("".join(f"{i}\\n" for i in ids))
        words = ["index", f"delete={path}", f"out={folder}"]
    else:
        verb, ids = "append", [f"w{number}-{serial}-{i}" for i in range(3)]
        path = log.with_suffix(f".{serial}.jsonl")
        rows = [json.dumps({"id": i, "text": f"common word {i}"}) for i in ids]
        path.write_text("\\n".join(rows))
        words = ["index", f"corpus={path}", f"out={folder}", "--append", "lock_wait=120"]
    note(verb=verb, ids=ids, end=None)
    code = main(words)
    note(verb=verb, ids=ids, end=code)
    if code == 0:
        alive = [i for i in alive if i not in ids] if verb == "delete" else alive + ids
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
    texts = index.store.get(ids)
    assert sorted(run.table["doc_id"].to_pylist()) == sorted(ids) and len(set(ids)) == len(ids)
    assert [text.text for text in texts] == [f"common word {i}" for i in ids]
    with open(log, "a") as out:
        out.write(json.dumps(sorted(ids)) + "\\n")
"""


def events(log: Path) -> list[dict[str, object]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line) for line in lines]


def check(folder: str, logs: list[Path], reads: list[Path]) -> tuple[int, int]:
    """Compares what is there with what was acknowledged; returns how much of it there was."""
    from raydist import storage
    from raydist.bow.index import BowIndex

    final = set(BowIndex.open(storage.local(folder), verify=True).doc_ids.to_pylist())
    acknowledged, batches = 0, []
    for log in logs:
        noted = events(log)
        outcomes: dict[tuple[object, ...], list[object]] = {}
        for event in noted:
            outcomes.setdefault((event["verb"], *event["ids"]), []).append(event["end"])  # type: ignore[misc]
        deletes = {i for (verb, *ids) in outcomes if verb == "delete" for i in ids}
        for (verb, *ids), ends in outcomes.items():
            done, unknown = 0 in ends, ends == [None]
            acknowledged += done
            if verb == "append":
                batches.append(set(ids))
                if done:
                    assert set(ids) - deletes <= final, f"lost: {ids}"
                elif not unknown:
                    assert not set(ids) & final, f"refused, and there: {ids}"
            elif done:
                assert not set(ids) & final, f"deleted, and there: {ids}"
    searches = 0
    for path in reads:
        for seen in events(path):
            searches += 1
            assert {"base"} <= set(seen)
            for batch in batches:  # each is added and deleted as a whole
                assert batch & set(seen) in (set(), batch)
    return acknowledged, searches


def play(folder: str, tmp_path: Path, seconds: float, seed: int) -> None:
    rng, writers = random.Random(seed), 4
    (tmp_path / "base.jsonl").write_text(json.dumps({"id": "base", "text": "common word base"}))
    start = [sys.executable, "-m", "raydist", "index", f"corpus={tmp_path}/base.jsonl"]
    subprocess.run([*start, f"out={folder}"], check=True, stderr=subprocess.DEVNULL)
    logs = [tmp_path / f"writer{i}.log" for i in range(writers)]
    reads = [tmp_path / f"reader{i}.log" for i in range(2)]
    errors = open(tmp_path / "errors.txt", "w")  # noqa: SIM115

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
        return subprocess.Popen([sys.executable, "-c", *words], env=machine, stderr=errors)

    processes = [launch(i) for i in range(writers + 2)]
    killed, end = 0, time.monotonic() + seconds
    try:
        while time.monotonic() < end or killed < 3 or not all(map(events, reads)):
            victim, patience = rng.randrange(writers), time.monotonic() + 60
            before = len(events(logs[victim]))
            while len(events(logs[victim])) < before + 3 and time.monotonic() < patience:
                time.sleep(0.1)  # starting takes long: one write at least is acknowledged
            time.sleep(rng.uniform(0, 1.5))
            alive = [process.poll() is None for process in processes[writers:]]
            assert all(alive), (tmp_path / "errors.txt").read_text()[-3000:]
            processes[victim].kill()
            processes[victim].wait()
            killed += 1
            processes[victim] = launch(victim)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        errors.close()
    # The last words: one more writer finds what the killed ones left, and removes it.
    (tmp_path / "last.jsonl").write_text(json.dumps({"id": "last", "text": "common word last"}))
    words = [sys.executable, "-m", "raydist", "index", f"corpus={tmp_path}/last.jsonl", "--append"]
    subprocess.run([*words, f"out={folder}", "lock_wait=120"], check=True)
    acknowledged, searches = check(folder, logs, reads)
    print(f"{acknowledged} writes acknowledged, {searches} searches, {killed} processes killed")
    assert acknowledged > 0 and searches > 0
    if "://" not in folder:
        left = {p.name for p in Path(folder).iterdir() if not p.name.startswith("store")}
        assert left == {"config.json", "manifest.json", "segments"}
        assert len(list(Path(folder).glob("store*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("place", ["local", "s3"])
def test_six_processes_for_five_minutes(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bucket = request.getfixturevalue("s3") if place == "s3" else str(tmp_path)
    play(f"{bucket}/idx", tmp_path, float(os.environ.get("RAYDIST_SECONDS", "300")), 2)
