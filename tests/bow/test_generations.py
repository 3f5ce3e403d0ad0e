"""Whoever has opened an index keeps it, whatever writers do meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from raydist import disk, locks
from raydist.bow.build.append import append_to_index
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.generation import LAYOUT
from raydist.bow.build.segments import merge_segments
from raydist.bow.format.segment import Segment
from raydist.bow.index import BowIndex
from raydist.bow.search.retriever import BowRetriever
from raydist.bow.spec import IndexSpec, MergeSpec
from raydist.data.store.reader import DocumentStore, kept, piece_names
from raydist.errors import ArtifactError, DataError
from raydist.generations import next_name
from raydist.manifest import read_manifest
from raydist.records import Query
from tests.bow.documents import read, splits_of
from tests.bow.test_append import ROWS, append, index


def answers(opened: BowIndex) -> tuple[object, ...]:
    """Everything that a reader can ask of an index."""
    texts = [each and each.text for each in opened.store.get([row[0] for row in ROWS])]
    run = BowRetriever(opened).search([Query("q", "w1 w2 w4")], 50)
    return texts, run.table.to_pylist(), opened.doc_ids.to_pylist(), opened.average_length


@pytest.mark.parametrize("merge", [True, False])
def test_a_reader_keeps_its_generation(tmp_path, merge):
    folder, spec = tmp_path / "idx", IndexSpec(merge=merge)
    index(ROWS[:20], folder, spec)
    readers = [BowIndex.open(folder)]
    changes = [
        lambda: append(ROWS[20:30], folder, spec, "more"),
        lambda: delete_from_index(folder, ["d3", "d25"]),
        lambda: append(ROWS[30:], folder, spec, "most"),
        lambda: delete_from_index(folder, [f"d{i}" for i in range(20) if i != 3]),
    ]
    shutil.copytree(folder, tmp_path / "copy0")
    for number, change in enumerate(changes, 1):
        change()
        readers.append(BowIndex.open(folder))
        shutil.copytree(folder, tmp_path / f"copy{number}")
    for number, reader in enumerate(readers):  # nothing was looked at before
        assert answers(reader) == answers(BowIndex.open(tmp_path / f"copy{number}"))
    assert len({str(answers(reader)) for reader in readers}) == len(readers)
    assert len(list(folder.glob("joined*"))) == 1


def test_a_reader_that_is_overtaken_while_it_opens_has_the_new_generation(tmp_path, monkeypatch):
    index(ROWS[:6], tmp_path)
    delete_from_index(tmp_path, ["d5"])
    opened = Segment.open
    overtaken = []

    def late(folder, *deletions, **options):
        if not overtaken:
            overtaken.append(folder)
            delete_from_index(tmp_path, ["d1"])
        return opened(folder, *deletions, **options)

    monkeypatch.setattr("raydist.bow.format.segment.Segment.open", late)
    assert BowIndex.open(tmp_path).doc_ids.to_pylist() == ["d0", "d2", "d3", "d4"]
    shutil.rmtree(tmp_path / read_manifest(tmp_path)["store"])
    with pytest.raises(ArtifactError, match=r"store\.json is missing"):
        BowIndex.open(tmp_path)


def test_a_folder_that_is_opened_later_stays_until_then(tmp_path):
    index(ROWS[:5], tmp_path)
    append(ROWS[5:9], tmp_path)
    store = tmp_path / read_manifest(tmp_path)["store"]
    with locks.reader(store):
        append(ROWS[9:12], tmp_path, key="most")
        assert (store / "store.json").exists()
    delete_from_index(tmp_path, ["d10"])
    assert not store.exists()
    with pytest.raises(ArtifactError, match="was replaced just now"), locks.reader(store):
        pass


def test_a_store_is_kept_with_all_that_it_joins(tmp_path):
    index(ROWS[:5], tmp_path)
    append(ROWS[5:9], tmp_path)
    store = tmp_path / read_manifest(tmp_path)["store"]
    with kept(store):
        merge_segments(tmp_path, MergeSpec())
        with DocumentStore.open(store) as opened:
            assert [each.doc_id for each in opened.get(["d1", "d7"])] == ["d1", "d7"]
    delete_from_index(tmp_path, ["d8"])
    assert not store.exists() and not (tmp_path / "store").exists()


def test_names_are_never_used_twice(tmp_path):
    index(ROWS[:5], tmp_path)
    manifest = read_manifest(tmp_path)
    assert next_name(manifest, "a") == next_name(manifest, "a") != next_name(manifest, "b")
    append(ROWS[5:7], tmp_path)
    assert next_name(read_manifest(tmp_path), "a").split("-") != next_name(manifest, "a").split("-")


def test_what_a_crash_left_is_removed_by_the_next_writer(tmp_path, monkeypatch):
    index(ROWS[:5], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("raydist.generations.Layout.publish", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            append(ROWS[5:9], tmp_path)
    assert len(list(tmp_path.glob("store*"))) == len(list(tmp_path.glob("segments/*"))) == 2
    assert len(BowIndex.open(tmp_path)) == 5
    (tmp_path / ".manifest.json.0123456789ab.part").write_text("{")  # killed while it wrote it
    append(ROWS[9:12], tmp_path, key="other")
    assert len(list(tmp_path.glob("store*"))) == len(list(tmp_path.glob("segments/*"))) == 2
    assert len(list(tmp_path.glob("joined*"))) == 1 and not list(tmp_path.glob(".*"))


def test_what_a_manifest_names_is_on_the_disk_before_it(tmp_path, monkeypatch):
    """Which files were synced is watched; a power failure after any of them loses nothing."""
    index(ROWS[:5], tmp_path)
    synced, renamed = set(), []
    fsync, replace = os.fsync, os.replace

    def watched_sync(number):
        synced.add(os.path.realpath(f"/proc/self/fd/{number}"))
        fsync(number)

    def watched_replace(source, target):
        if Path(target) == tmp_path / "manifest.json":
            renamed.append(set(synced))
        replace(source, target)

    monkeypatch.setattr(disk.os, "fsync", watched_sync)
    monkeypatch.setattr(disk.os, "replace", watched_replace)
    append(ROWS[5:9], tmp_path)
    manifest = read_manifest(tmp_path)
    stores = piece_names(tmp_path / manifest["store"])[1:]
    assert _below(tmp_path, [manifest["segments"][1], manifest["store"], *stores]) <= renamed[0]
    delete_from_index(tmp_path, ["d3", "d7"])
    manifest = read_manifest(tmp_path)
    deletions = manifest["deletions"].values()
    assert len(deletions) == 2
    assert _below(tmp_path, ["deletions", manifest["store"], *deletions]) <= renamed[1]
    assert str(tmp_path) in synced


def _below(folder: Path, names: list[str]) -> set[str]:
    """Folders and what is in them."""
    return {str(p) for name in names for p in (folder / name, *(folder / name).glob("*"))}


def _append(folder: Path, first: int) -> None:
    rows = ROWS[first : first + 5]
    append_to_index(splits_of(rows), read, folder, IndexSpec(), inputs={"c": str(first)})


def test_appends_at_the_same_moment_are_all_in(tmp_path):
    index(ROWS[:5], tmp_path)
    context = multiprocessing.get_context("fork")
    starts = range(5, 40, 5)
    processes = [context.Process(target=_append, args=(tmp_path, first)) for first in starts]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(starts)
    opened = BowIndex.open(tmp_path, verify=True)
    assert sorted(opened.doc_ids.to_pylist()) == sorted(row[0] for row in ROWS)
    assert not list(tmp_path.glob(".*"))
    LAYOUT.clean(tmp_path)
    assert len(BowIndex.open(tmp_path)) == len(ROWS)


def test_more_documents_than_a_segment_can_number_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("raydist.bow.build.create.MAX_DOCUMENTS", 40)
    with pytest.raises(DataError, match="40 documents: a segment numbers them with 32 bits"):
        index(ROWS, tmp_path / "merged")
    index(ROWS, tmp_path / "segments", IndexSpec(merge=False))
    index(ROWS[:39], tmp_path / "fewer")
