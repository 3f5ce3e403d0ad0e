"""An index that changes: what a deletion, an update and a merge cost, beside building it.

    python -m benchmarks.lifecycle                # 1 M documents
    python -m benchmarks.lifecycle docs=100000

Commands run in this process, after a first round on a small index that loads machine code. Their
CPU seconds are compared, so that other work on the machine counts less. `benchmarks.scaling`
records the shares.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bow_fetch import corpus
from benchmarks.report import arguments, print_table

DEFAULTS = {"docs": 1_000_000, "rounds": 5}
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


def deletions(source: Path, folder: Path, rounds: int = 5) -> dict[str, float]:
    """Returns the CPU seconds of a build, and of deleting and replacing one document of it.

    Args:
        source: a corpus in JSON lines.
        folder: a scratch folder.
        rounds: deletions and replacements, of which the median counts.
    """
    with open(source, encoding="utf-8") as lines:
        documents = [json.loads(line) for line in itertools.islice(lines, 2 * rounds)]
    small = folder / "small.jsonl"
    small.write_text("".join(f"{json.dumps(each)}\n" for each in documents), encoding="utf-8")
    _changes(small, folder / "small", documents[:2])
    build, deletes, updates = _changes(source, folder / "index", documents)
    delete, update = sorted(deletes)[rounds // 2], sorted(updates)[rounds // 2]
    return {
        "build_s": build,
        "delete_one_s": delete,
        "update_one_s": update,
        "delete_one_of_1m_vs_build": delete / build,
        "update_one_of_1m_vs_build": update / build,
    }


def merge_of_segments(source: Path, folder: Path) -> dict[str, float]:
    """Returns the CPU seconds of merging ten segments of a corpus into one, and its share.

    Args:
        source: a corpus in JSON lines.
        folder: a scratch folder.
    """
    few = folder / "few.jsonl"
    with open(source, encoding="utf-8") as lines:
        few.write_text("".join(itertools.islice(lines, 100)), encoding="utf-8")
    for name, path in (("few", few), ("all", source)):  # the first one loads machine code
        out, size = f"out={folder / name}-segments", -(-path.stat().st_size // _SEGMENTS)
        build = _seconds(f"corpus={path}", f"out={folder / name}-one")
        _seconds(f"corpus={path}", out, "merge=false", f"split_bytes={size}")
        merge = _seconds(out, verb="merge")
    return {"merge_s": merge, "merge_vs_build": merge / build}


def _changes(
    source: Path, index: Path, documents: Sequence[dict[str, Any]]
) -> tuple[float, list[float], list[float]]:
    """Builds an index, then deletes every other document and replaces the ones between."""
    out = f"out={index}"
    build = _seconds(f"corpus={source}", out)
    deletes, updates = [], []
    ids, more = index.with_suffix(".txt"), index.with_suffix(".more.jsonl")
    for old, new in zip(documents[::2], documents[1::2]):
        ids.write_text(f"{old['id']}\n", encoding="utf-8")
        deletes.append(_seconds(f"delete={ids}", out))
        more.write_text(json.dumps(new) + "\n", encoding="utf-8")
        updates.append(_seconds(f"corpus={more}", out, "--append", "duplicates=last"))
    return build, deletes, updates


def _seconds(*words: str, verb: str = "index") -> float:
    from raydist.cli import main as raydist

    began = time.process_time()
    if raydist([verb, *words]):
        raise SystemExit(f"{verb} failed")
    return time.process_time() - began


if __name__ == "__main__":
    main()
