"""Vectors whose rows are shared have the scores and the order of one scan, to the bit."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydist import storage
from raydist.actors import held
from raydist.build import open_sharded
from raydist.cli import main
from raydist.commands import search
from raydist.commands.answers.fused import FusedSearch
from raydist.config.load import load
from raydist.dense.exact import exact_search
from raydist.dense.retriever import DenseRetriever
from raydist.dense.sharded import RowShard, ShardedScan
from raydist.dense.spec import DenseSearchSpec
from raydist.dense.vectors import VectorShards
from raydist.errors import ConfigError
from tests.bow.shards_here import Here

from .test_exact import cases, example
from .test_retriever import QUERIES, folder  # noqa: F401  a fixture
from .test_vectors import written


@given(
    case=cases,
    cuts=st.lists(st.integers(0, 60), max_size=3),
    shards=st.integers(1, 4),
    share=st.sampled_from([None, 0.0, 0.3]),
)
def test_shards_are_one_scan(case, cuts, shards, share):
    vectors, queries = example(case["rows"], case["seed"], case["ties"])
    k, block = case["k"], case["block"]
    allowed = None
    if share is not None:
        allowed = np.random.default_rng(case["seed"]).random(len(vectors)) < share
    with tempfile.TemporaryDirectory() as place:
        stored = written(Path(place), vectors, sorted(min(c, len(vectors)) for c in cuts))
        expected = exact_search(stored, queries, k, block=block, allowed_N=allowed)
        scan = ShardedScan(place, stored, shards, Here, block)
        for mine, single in zip(scan(queries, k, allowed_N=allowed), expected):
            np.testing.assert_array_equal(mine, single)


def test_each_shard_reads_its_own_rows_alone(tmp_path, monkeypatch):
    vectors = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    stored = written(tmp_path, vectors, [20])
    groups = []

    def launch(makers):
        groups.append(Here(makers))
        return groups[0]

    ShardedScan(str(tmp_path), stored, 3, launch, block=8)
    shards = groups[0].objects
    assert [each._rows for each in shards] == [range(0, 16), range(16, 32), range(12, 30)]
    assert [len(each._shards) for each in shards] == [20, 50, 30], "files of 20 and 30 rows"
    read = []

    def watched(start, stop):
        read.append((start, stop))
        return vectors[20 + start : 20 + stop]

    object.__setattr__(shards[2]._shards, "read", watched)
    RowShard.search(shards[2], vectors[:2], 5, None)
    assert read == [(12, 20), (20, 28), (28, 36)]


class Apart(Here):
    """Shards that each have a disk, with the files of their own part alone."""

    def __init__(self, disks: Path, makers: Sequence[partial[RowShard]]) -> None:
        self.files: list[set[str]] = []
        moved = []
        for make in makers:
            part, block = make.args
            disk = disks / str(len(moved))
            files = [f for each in part.patterns for f in Path(part.folder).glob(each)]
            for file in [*files, Path(part.folder) / "manifest.json"]:
                copy = disk / file.relative_to(part.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
            self.files.append({file.relative_to(part.folder).as_posix() for file in files})
            moved.append(partial(RowShard, part._replace(folder=str(disk)), block))
        super().__init__(moved)


def test_each_shard_has_its_own_files_alone(folder, tmp_path):  # noqa: F811
    lived = tmp_path / "lived"  # a second segment, and deletions in both
    shutil.copytree(folder, lived)
    more = tmp_path / "more.jsonl"
    more.write_text("".join(f'{{"id": "n{i}", "text": "heron {i}"}}\n' for i in range(40)))
    assert main(["embed", f"corpus={more}", f"out={lived}", "--append"]) == 0
    whole = DenseRetriever.open(lived, device="cpu")
    (tmp_path / "ids.txt").write_text("\n".join([*whole.doc_ids.to_pylist()[1:90:3], "n7"]) + "\n")
    assert main(["embed", f"delete={tmp_path / 'ids.txt'}", f"out={lived}"]) == 0
    whole = DenseRetriever.open(lived, device="cpu")
    ids = whole.doc_ids.to_pylist()[3::2]
    groups = []

    def launch(makers: Sequence[partial[RowShard]]) -> Apart:
        groups.append(Apart(tmp_path / "disks", makers))
        return groups[0]

    sharded = DenseRetriever.open(lived, device="cpu")
    sharded.scan = ShardedScan(str(lived), sharded.shards, 3, launch, block=16)
    whole.scan = partial(exact_search, whole.shards, block=16)
    for k in (1, 10, 1000):
        assert sharded.search(QUERIES, k).table.equals(whole.search(QUERIES, k).table)
    mine = sharded.only(ids).search(QUERIES, 20)
    assert mine.table.equals(whole.only(ids).search(QUERIES, 20).table)
    (group,) = groups
    assert all(own < set.union(*group.files) for own in group.files), "one has all files"
    assert any(name.startswith("segments/") for name in group.files[2])


def test_runs_of_shards_are_those_of_one_process(folder):  # noqa: F811
    whole = DenseRetriever.open(folder, device="cpu")
    ids = whole.doc_ids.to_pylist()[3:90:2]
    for shards in (1, 3):
        sharded = open_sharded(str(folder), shards, Here)
        for k in (1, 10, 1000):
            assert sharded.search(QUERIES, k).table.equals(whole.search(QUERIES, k).table)
        for each in ("only", "without"):
            mine = getattr(sharded, each)(ids).search(QUERIES, 20)
            assert mine.table.equals(getattr(whole, each)(ids).search(QUERIES, 20).table)


def test_vectors_on_an_object_store_are_shared(folder, s3):  # noqa: F811
    uri = f"{s3}/vec"
    with storage.writing(uri) as place:
        shutil.copytree(folder, place, dirs_exist_ok=True)
    makers = []

    def launch(own):
        makers.extend(own)
        return Here(own)

    stored = VectorShards.open(folder)
    queries = np.random.default_rng(1).normal(size=(3, stored.dimension)).astype(np.float32)
    scan = ShardedScan(uri, stored, 2, launch, block=16)
    for mine, single in zip(scan(queries, 20), exact_search(stored, queries, 20, block=16)):
        np.testing.assert_array_equal(mine, single)
    sizes = [held(make) for make in makers]
    everything = sum(file.stat().st_size for file in folder.glob("shards/*/*"))
    assert all(0 < size < everything for size in sizes), "each has copied its own files alone"


def test_approximate_search_is_refused(folder):  # noqa: F811
    with pytest.raises(ConfigError, match="approximate index, whose parts are not shared"):
        open_sharded(str(folder), 2, Here, dense=DenseSearchSpec(approximate=True))


def test_fused_runs_of_shards_are_those_of_one_process(folder, small_corpus, tmp_path):  # noqa: F811
    words = [f"corpus={small_corpus}", f"out={tmp_path / 'IDX'}", "merge=false"]
    assert main(["index", *words, "split_bytes=4000"]) == 0
    keys = [f"index={tmp_path / 'IDX'},{folder}", "queries=q.tsv", "k=30"]
    for more in (["fusion=rrf"], ["fusion=interpolate", "ties=anserini", "depth=50"]):
        config = load(search.Config, [], [*keys, *more, "shards=2"])
        whole = FusedSearch(config)
        sharded = FusedSearch(config, Here)
        assert sharded.bow is None and whole.bow is not None
        expected = whole(QUERIES).table
        assert expected.num_rows and sharded(QUERIES).table.equals(expected)
        assert [table.num_rows for table in sharded.tables(QUERIES)] == [expected.num_rows]
    config = load(search.Config, [], [*keys, "fusion=rrf", "shards=2", "feedback=rm3"])
    expected = FusedSearch(config)(QUERIES).table
    assert FusedSearch(config, Here)(QUERIES).table.equals(expected)
