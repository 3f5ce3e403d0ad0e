"""What verbs do alike with an output that grows: deletions, and what appends and merges leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydist import log
from raydist.artefact import planned
from raydist.config.base import Flags
from raydist.errors import ArtifactError, ConfigError, JobError

if TYPE_CHECKING:
    import pyarrow as pa

    from raydist.dense.changes import Segmented

Facts = Mapping[str, Any]


def segmented(kind: str) -> Segmented | None:
    """Returns how an output of vectors changes, None for one of another kind."""
    from raydist.dense.segments import KIND

    if kind == KIND:
        from raydist.dense.changes import VECTORS

        return VECTORS
    from raydist.late import format

    if kind != format.KIND:
        return None
    from raydist.late.changes import LATE

    return LATE


def delete_listed(
    out: str,
    path: str,
    flags: Flags,
    delete: Callable[[Path, pa.ChunkedArray], Facts | None],
    purge: Callable[[Path], object] | None,
    folders: Callable[[Path], AbstractContextManager[Sequence[Path]]] = lambda out: nullcontext(
        [out]
    ),
) -> None:
    """Deletes the documents of a list.

    Args:
        out: the output.
        path: a file of ids.
        flags: of the command line.
        delete: marks documents of a folder as deleted; returns None if they were already.
        purge: removes the bytes of what is deleted from a folder, None if that is not wanted.
        folders: gives the folders of the output while they are changed.
    """
    from raydist.data.ids import IdList

    if flags.append:
        raise ConfigError("delete: takes documents out, --append adds them; do one after the other")
    ids = IdList.read(path)
    if planned(flags.dry_run, f"delete {log.count(len(ids), 'id')} from {out}"):
        return
    with folders(Path(out)) as places:
        for folder in places:
            facts = delete(folder, ids.column)
            if facts is None:
                log.say(f"{folder}: these documents were already deleted")
            else:
                left = log.count(facts["documents"], "document")
                log.say(f"{folder}: {log.count(len(ids), 'id')} taken out, {left} left")
            if purge is not None:
                purge(folder)
                log.say(f"{folder}: all bytes of deleted documents are removed")


def appended(
    folder: Path,
    facts: Facts | None,
    merge_tail: Callable[[Path], Facts | None] | None,
    report: Callable[[Facts], None],
) -> None:
    """Merges what an append has left, and reports it.

    Where the merge fails, the append is done all the same.

    Args:
        folder: of the output.
        facts: of the append, None if the same was appended before.
        merge_tail: merges the last segments, None if that is not wanted.
        report: prints facts.
    """
    merged = None
    if merge_tail is not None:
        try:
            merged = merge_tail(folder)
        except (ArtifactError, JobError) as error:
            log.warn(f"{folder}: appended, but not merged: {error}")
    if merged is not None:
        log.say(f"{folder}: merged into {log.count(len(merged['segments']), 'segment')}")
    if facts is None:
        log.say(f"{folder}: these documents were already appended")
        return
    report({**facts, **(merged or {})})


def merge_segments(
    folder: Path,
    before: tuple[int, int],
    segments: int,
    needed: bool,
    merge: Callable[[], Facts | None],
    flags: Flags,
    rows: Callable[[Facts], Sequence[tuple[str, object]]] = lambda facts: (),
) -> None:
    """Merges the segments of a folder, and reports it.

    Args:
        folder: of the output.
        before: its segments and deleted documents.
        segments: how many it is to have.
        needed: whether anything is to be merged.
        merge: merges; returns None where nothing was to be merged, but removes what others left.
        flags: of the command line.
        rows: what else is reported.
    """
    deleted = before[1]
    what = f"{log.count(before[0], 'segment')}, {log.count(deleted, 'deleted document')}"
    if needed and planned(
        flags.dry_run, f"merge {folder} ({what}) into {log.count(segments, 'segment')}"
    ):
        return
    clock, cpu = time.monotonic(), time.process_time()
    facts = None if flags.dry_run else merge()
    if facts is None:
        why = ": another command has merged it" if needed else ""
        log.say(f"{folder}: {what}: nothing to merge{why}")
        return
    table: list[tuple[str, object]] = [
        ("segments", f"{before[0]:,} -> {len(facts['segments']):,}"),
        ("deleted documents", f"{deleted:,} removed"),
        ("documents", f"{facts['documents']:,}"),
        *rows(facts),
        ("time", log.duration(time.monotonic() - clock)),
        ("CPU time", log.duration(time.process_time() - cpu)),
    ]
    log.table(f"merged {folder}", ["what", "value"], table)
