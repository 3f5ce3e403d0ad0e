"""An index that changes: what a deletion, an update and a merge cost, beside building it.

    python -m benchmarks.lifecycle                # 1 M documents
    python -m benchmarks.lifecycle docs=100000

Each command runs in a process of its own, whose start and imports are measured by a dry run and
taken off. CPU seconds are compared: all run on one core, and other work on the machine counts less.
`benchmarks.scaling` records the shares.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.bow_fetch import corpus, run
from benchmarks.report import arguments, goal, print_table

DEFAULTS = {"docs": 1_000_000, "rounds": 3}
GOALS = {"delete_one_of_1m_vs_build": goal("<=", 0.02), "merge_vs_build": goal("<=", 0.5)}
_SEGMENTS = 10


def main() -> None:
    settings = arguments(DEFAULTS)
    folder = Path(tempfile.mkdtemp(prefix="raydist-lifecycle-"))
    try:
        source = corpus(settings["docs"]) / "corpus.jsonl"
        figures = deletions(source, folder, settings["rounds"])
        figures |= merge_of_segments(source, folder)
    finally:
        shutil.rmtree(folder)
    print_table("lifecycle", ["what", "value"], list(figures.items()))


def deletions(source: Path, folder: Path, rounds: int = 3) -> dict[str, float]:
    """Returns the CPU seconds of a build, and of deleting and replacing one document of it.

    Args:
        source: a corpus in JSON lines.
        folder: a scratch folder.
        rounds: deletions and updates, of which the cheapest counts; none is compiled in.
    """
    out = f"out={folder / 'index'}"
    rounds += 1  # the first one compiles
    with open(source, encoding="utf-8") as lines:
        documents = [json.loads(line) for line in itertools.islice(lines, 2 * rounds)]
    none = folder / "none.txt"
    none.write_text("none\n", encoding="utf-8")
    start = min(_seconds(f"delete={none}", out, "--dry-run") for _ in range(3))
    some = folder / "some.jsonl"
    some.write_text("".join(f"{json.dumps(each)}\n" for each in documents), encoding="utf-8")
    _seconds(f"corpus={some}", f"out={folder / 'compiled'}")
    build = _seconds(f"corpus={source}", out)
    deletes, updates = [], []
    for number in range(rounds):
        ids, more = folder / f"{number}.txt", folder / f"{number}.jsonl"
        ids.write_text(f"{documents[2 * number]['id']}\n", encoding="utf-8")
        more.write_text(json.dumps(documents[2 * number + 1]) + "\n", encoding="utf-8")
        deletes.append(_seconds(f"delete={ids}", out))
        updates.append(_seconds(f"corpus={more}", out, "--append", "duplicates=last"))
    delete, update = max(0.0, min(deletes) - start), max(0.0, min(updates) - start)
    return {
        "start_s": start,
        "build_s": build - start,
        "delete_one_s": delete,
        "update_one_s": update,
        "delete_one_of_1m_vs_build": delete / (build - start),
        "update_one_of_1m_vs_build": update / (build - start),
    }


def merge_of_segments(source: Path, folder: Path) -> dict[str, float]:
    """Returns the CPU seconds of merging ten segments of a corpus into one, and its share.

    Args:
        source: a corpus in JSON lines.
        folder: a scratch folder, in which `deletions` has built the corpus as one segment.
    """
    few, out = folder / "few.jsonl", f"out={folder / 'segments'}"
    with open(source, encoding="utf-8") as lines:
        few.write_text("".join(itertools.islice(lines, 100)), encoding="utf-8")
    size = f"split_bytes={-(-source.stat().st_size // _SEGMENTS)}"
    _seconds(f"corpus={few}", f"out={folder / 'few'}", "merge=false", "split_bytes=5000")
    start = min(_seconds(f"out={folder / 'few'}", "--dry-run", verb="merge") for _ in range(3))
    _seconds(f"out={folder / 'few'}", verb="merge")  # compiles
    build = _seconds(f"corpus={source}", f"out={folder / 'one'}") - start
    _seconds(f"corpus={source}", out, "merge=false", size)
    merge = _seconds(out, verb="merge") - start
    return {"merge_s": merge, "merge_vs_build": merge / build}


def _seconds(*words: str, verb: str = "index") -> float:
    return run(sys.executable, "-m", "raydist", verb, *words)[1]


if __name__ == "__main__":
    main()
