"""A search by shards is one search of all segments, to the byte, whatever is asked of it."""

from __future__ import annotations

import itertools
import random
import shutil
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raydist import storage
from raydist.artefact import Output
from raydist.bow.build.append import append_to_index
from raydist.bow.build.create import build_index
from raydist.bow.build.delete import delete_from_index
from raydist.bow.build.generation import LAYOUT
from raydist.bow.build.segments import merge_segments
from raydist.bow.exchange.vectors import index_vectors
from raydist.bow.feedback.spec import Axiom, Bm25Prf, Rm3, Rocchio
from raydist.bow.index import BowIndex
from raydist.bow.sharded.plan import cuts, open_shards
from raydist.bow.sharded.ranks import at_ranks
from raydist.bow.sharded.shard import Part, Shard
from raydist.bow.spec import (
    Bm25,
    BowSearchSpec,
    F2Exp,
    F2Log,
    IndexSpec,
    Inl2,
    MergeSpec,
    Qld,
    Qljm,
    QueryLikelihood,
    Sdm,
    Spl,
)
from raydist.build import open_retriever, open_sharded
from raydist.data.columns import Column, table_of
from raydist.errors import ArtifactError, ConfigError, DataError, JobError
from raydist.manifest import read_manifest
from raydist.records import Query
from tests.bow.shards_here import Here, Lost
from tests.bow.test_histories import IDS, KINDS, ROWS, STEP, History

COLUMNS = [Column("year", "int64"), Column("price", "float64")]
WORDS = ["canal", "heron", "boat", "fish", "lake", "reed"]
QUERIES = [
    *WORDS,
    "boats on the canal",
    "heron heron fish",
    "nowhere",
    "",
    "nowhere lakes word7",
    "reed lake fish boat heron canal word3 word11",
]
STRUCTURED = ['"heron fish"', "+canal -boat", "canal^2.5 lake", '"reed lake"~3 OR word5', "nowhere"]
SPECS: dict[str, BowSearchSpec] = {
    "bm25": BowSearchSpec(),
    "k1, b": BowSearchSpec(scoring=Bm25(k1=1.2, b=0.75)),
    "exact lengths": BowSearchSpec(scoring=Bm25(lengths="exact")),
    "bytes of lengths": BowSearchSpec(scoring=Bm25(lengths="byte")),
    "query side": BowSearchSpec(scoring=Bm25(query_side=True)),
    **{
        variant: BowSearchSpec(scoring=Bm25(variant=variant))  # type: ignore[arg-type]
        for variant in ("robertson", "atire", "bm25+", "bm25l")
    },
    "ql": BowSearchSpec(scoring=QueryLikelihood()),
    "jelinek-mercer": BowSearchSpec(scoring=QueryLikelihood(smoothing="jelinek-mercer")),
    "qld": BowSearchSpec(scoring=Qld()),
    "qljm": BowSearchSpec(scoring=Qljm()),
    "inl2": BowSearchSpec(scoring=Inl2()),
    "spl": BowSearchSpec(scoring=Spl()),
    "f2exp": BowSearchSpec(scoring=F2Exp()),
    "f2log": BowSearchSpec(scoring=F2Log()),
    "external": BowSearchSpec(ties="external"),
    "anserini": BowSearchSpec(ties="anserini"),
    "filter": BowSearchSpec(filter="year >= 2003 and price < 0.9"),
    "sort": BowSearchSpec(sort="year", ties="external"),
    "sort down": BowSearchSpec(sort="-price", filter="year is not null"),
    "threads": BowSearchSpec(threads=2, in_memory=True),
    "rm3": BowSearchSpec(feedback=Rm3(docs=4)),
    "rm3, anserini": BowSearchSpec(feedback=Rm3(filter=False), ties="anserini", scoring=Qld()),
    "rocchio": BowSearchSpec(feedback=Rocchio(negative=True, depth=12), filter="year > 2001"),
    "bm25prf": BowSearchSpec(feedback=Bm25Prf(docs=3), sort="year"),
    "axiom": BowSearchSpec(feedback=Axiom(docs=3, pool=5), filter="year > 2000"),
    "phrases": BowSearchSpec(syntax="lucene", ties="anserini"),
    "sdm": BowSearchSpec(scoring=Bm25(sdm=Sdm())),
}
"""How an index of texts is searched."""


def rows(count: int, seed: int) -> list[tuple[Any, ...]]:
    draw = random.Random(seed)
    return [
        (
            f"d{draw.randrange(10**6)}.{seed}.{i}",
            "",
            " ".join([*draw.choices(WORDS, k=draw.randint(0, 6)), f"word{draw.randrange(15)}"])
            if i % 9
            else "",
            draw.choice([None, *range(2000, 2008)]),
            None if i % 5 == 0 else round(draw.random(), 1),
        )
        for i in range(count)
    ]


def read(split: Any, rejects: object) -> Iterator[pa.Table]:
    yield table_of(split["rows"], COLUMNS)


def splits(*parts: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [{"path": f"part{i}", "rows": list(map(list, part))} for i, part in enumerate(parts)]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An index at each step of its life."""
    places: dict[str, Path] = {}

    def index(name: str) -> Path:
        folder = places[name] = tmp_path_factory.mktemp("sharded") / "index"
        output = Output.open(folder, kind="bow-index", config={}, inputs={"corpus": "x"})
        spec = IndexSpec(merge=False, positions=True, forward=True)
        parts = [rows(size, seed) for seed, size in enumerate((30, 1, 45, 12, 27))]
        output.finish(**build_index(splits(*parts), read, folder, spec))
        LAYOUT.clean(folder)
        return folder

    def change(folder: Path) -> None:
        ids = BowIndex.open(folder).doc_ids.to_pylist()
        delete_from_index(folder, ids[3:9] + ids[40:60:3] + ids[-20:-15])
        more = splits(rows(22, 7))
        spec = IndexSpec(merge=False, positions=True, forward=True)
        append_to_index(
            more, read, folder, spec, inputs={"more": "y"}, columns=[each.name for each in COLUMNS]
        )
        delete_from_index(folder, BowIndex.open(folder).doc_ids.to_pylist()[-3:-1])

    index("built")
    change(index("changed"))
    change(index("merged"))
    merge_segments(places["merged"], MergeSpec(segments=3))
    return places


def both(folder: Path, spec: BowSearchSpec, shards: int, launch: Any = Here) -> tuple[Any, Any]:
    return open_retriever(str(folder), spec), open_sharded(str(folder), shards, launch, spec)


@pytest.mark.parametrize("life", ["built", "changed", "merged"])
@pytest.mark.parametrize("name", SPECS)
def test_runs_are_those_of_one_search(indexes: dict[str, Path], life: str, name: str) -> None:
    spec = SPECS[name]
    texts = STRUCTURED if spec.syntax == "lucene" else QUERIES
    queries = [Query(f"q{i}", text) for i, text in enumerate(texts)]
    for shards in (1, 2, 3):
        whole, sharded = both(indexes[life], spec, shards)
        for k in (1, 7, 1000):
            expected = whole.search(queries, k).table
            assert expected.num_rows
            assert sharded.search(queries, k).table.equals(expected), (shards, k)


@pytest.mark.parametrize("name", ["bm25", "anserini", "rm3", "sort"])
def test_some_documents_alone_or_all_others(indexes: dict[str, Path], name: str) -> None:
    queries = [Query(f"q{i}", text) for i, text in enumerate(QUERIES)]
    whole, sharded = both(indexes["changed"], SPECS[name], 3)
    ids = [*whole.doc_ids[5:70:2].to_pylist(), "unknown"]
    assert sharded.doc_ids.to_pylist() == whole.doc_ids.to_pylist()
    for restrict in (
        lambda each: each.only(ids),
        lambda each: each.without(pa.array(ids)),
        lambda each: each.where("year < 2005").without(ids),
    ):
        expected = restrict(whole).search(queries, 9).table
        assert expected.num_rows
        assert restrict(sharded).search(queries, 9).table.equals(expected)
    assert sharded.search(queries, 9).table.equals(whole.search(queries, 9).table)


@pytest.mark.parametrize("name", ["qld", "filter", "rocchio", "phrases"])
def test_shards_that_are_lost_answer_the_same_once_they_are_opened_again(
    indexes: dict[str, Path], name: str
) -> None:
    spec = SPECS[name]
    texts = STRUCTURED if spec.syntax == "lucene" else QUERIES
    queries = [Query(f"q{i}", text) for i, text in enumerate(texts)]
    whole, sharded = both(indexes["changed"], spec, 2, Lost)
    assert sharded.search(queries, 20).table.equals(whole.search(queries, 20).table)


def test_many_rows_come_in_parts(indexes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydist.bow.sharded.search._ROWS", 50)
    queries = [Query(f"q{i}", text) for i, text in enumerate(QUERIES)]
    whole, sharded = both(indexes["built"], BowSearchSpec(), 2)
    assert sharded.search(queries, 10).table.equals(whole.search(queries, 10).table)
    assert len(sharded.search([], 10)) == 0


def test_scores_are_explained_by_the_shard_that_has_the_document(
    indexes: dict[str, Path],
) -> None:
    whole, sharded = both(indexes["changed"], SPECS["rm3"], 3)
    for doc_id in whole.doc_ids[::30].to_pylist():
        assert sharded.explain("heron fish", doc_id) == whole.explain("heron fish", doc_id)
    with pytest.raises(DataError, match="'nowhere'"):
        sharded.explain("heron", "nowhere")


def test_weighted_terms(tmp_path: Path) -> None:
    draw = random.Random(3)
    vectors = [
        (f"d{i}", {word: round(draw.random(), 2) for word in draw.choices(WORDS, k=3)})
        for i in range(50)
    ]
    output = Output.open(tmp_path / "index", kind="bow-index", config={}, inputs={})
    output.finish(**index_vectors(vectors, tmp_path / "index", segment_documents=11))
    queries = [
        (f"q{i}", {a: 0.5, b: 1.25, "nowhere": 1.0})
        for i, (a, b) in enumerate(itertools.pairwise(WORDS))
    ]
    for ties in ("docid", "anserini"):
        for shards in (1, 2, 3):
            whole, sharded = both(tmp_path / "index", BowSearchSpec(ties=ties), shards)  # type: ignore[arg-type]
            for k in (3, 100):
                expected = whole.search_terms(queries, k).table
                assert expected.num_rows
                assert sharded.search_terms(queries, k).table.equals(expected)
    with pytest.raises(ConfigError, match="no analyzer"):
        sharded.search([Query("q", "heron")], 3)


@pytest.mark.parametrize("kind", [*KINDS, "vectors"])
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=ROWS,
    steps=st.lists(STEP, max_size=4),
    shards=st.integers(1, 3),
    only=st.sets(st.sampled_from(IDS)),
)
def test_whatever_was_appended_deleted_and_merged(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    rows: Any,
    steps: Any,
    shards: int,
    only: Any,
) -> None:
    history = History(tmp_path_factory.mktemp("history"), kind, [(key, text) for key, text in rows])
    for step in steps:
        history.take(step)
    folder = history.folder / "index"
    shards = min(shards, len(read_manifest(folder)["segments"]))
    words = ["cat", "dog", "bird", "fish", "cow"]
    for spec in (BowSearchSpec(ties="external"), BowSearchSpec(scoring=Qld())):
        if kind == "vectors" and spec.ties == "docid":
            continue
        whole, sharded = both(folder, spec, shards)
        for a, b in ((whole, sharded), (whole.without(only), sharded.without(only))):
            for k in (2, 50):
                if kind == "vectors":
                    queries = [(word, {word: 1.0, "cow": 0.5}) for word in words]
                    assert b.search_terms(queries, k).table.equals(a.search_terms(queries, k).table)
                else:
                    texts = [Query(word, f"{word} cow") for word in words]
                    assert b.search(texts, k).table.equals(a.search(texts, k).table)


@given(st.lists(st.sets(st.text("ab\u00e9\U0001f600", max_size=4)), min_size=1, max_size=4))
def test_ranks_of_ids_are_found_where_no_place_has_all(parts: list[set[str]]) -> None:
    names = sorted({name for part in parts for name in part}, key=str.encode)
    owner = {name: max(i for i, part in enumerate(parts) if name in part) for name in names}
    lists = [[n.encode() for n in names if owner[n] == i] for i in range(len(parts))]

    class Lists:
        def ask(self, method: str, arguments: Any) -> list[Any]:
            if method == "ids_below":
                return [
                    [bisect_left(own, name) for name in given[0]]
                    for own, given in zip(lists, arguments)
                ]
            return [
                None if given is None else [own[rank] for rank in given[0]]
                for own, given in zip(lists, arguments)
            ]

    ranks = list(range(len(names)))[::-1]
    places = at_ranks(Lists(), [len(own) for own in lists], ranks)
    assert [lists[shard][rank].decode() for shard, rank in places] == names[::-1]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=12), st.data())
def test_each_part_has_something_and_all_are_in_order(sizes: list[int], data: Any) -> None:
    parts = data.draw(st.integers(1, len(sizes)))
    places = cuts(sizes, parts)
    assert places[0] == 0 and places[-1] == len(sizes) and len(places) == parts + 1
    assert (np.diff(places) > 0).all()


def test_parts_have_about_the_same_size() -> None:
    assert cuts([5, 5, 5, 5], 2) == [0, 2, 4]
    assert cuts([90, 5, 5, 5, 5], 2) == [0, 1, 5]
    assert cuts([1, 1, 1, 97], 3) == [0, 2, 3, 4]


def test_what_shards_do_not_search_is_refused_before_any_is_opened(
    indexes: dict[str, Path], tmp_path: Path
) -> None:
    def launch(makers: object) -> Any:
        raise AssertionError("opened")

    folder = str(indexes["merged"])
    with pytest.raises(ConfigError, match=r"has 3 segments.*raydist merge .* segments=4 cuts it"):
        open_sharded(folder, 4, launch, BowSearchSpec())
    with pytest.raises(ConfigError, match="effort below 1"):
        open_sharded(folder, 2, launch, BowSearchSpec(effort=0.5))
    with pytest.raises(ConfigError, match=r"fields: .* has none"):
        open_sharded(folder, 2, launch, BowSearchSpec(fields={"title": 1.0}))
    history = History(tmp_path, "lists", [(f"d{i}", "cat") for i in range(4)])
    with pytest.raises(ConfigError, match=r"has none; build it with forward=true"):
        open_sharded(str(history.folder / "index"), 1, Here, BowSearchSpec(feedback=Rm3()))


def test_feedback_reads_the_texts_where_there_is_no_forward_index(tmp_path: Path) -> None:
    draw = random.Random(5)
    texts = [
        (f"d{i}", " ".join([*draw.choices(WORDS, k=3), f"word{draw.randrange(20)}"]))
        for i in range(80)
    ]
    history = History(tmp_path, "unmerged", texts[:40])
    history.take(("delete", {"d3", "d17", "d30"}))
    history.take(("first", texts[40:]))
    history.take(("delete", {"d41", "d60"}))
    queries = [Query(text, text) for text in ("heron word3", "canal word7 word8", "lake")]
    for feedback in (Rm3(), Rocchio(), Bm25Prf()):
        spec = BowSearchSpec(feedback=feedback)
        whole, sharded = both(history.folder / "index", spec, 2)
        expected = whole.search(queries, 30).table
        assert expected.num_rows and sharded.search(queries, 30).table.equals(expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BowSearchSpec(filter="colour == 'red'"), "colour"),
        (BowSearchSpec(sort="colour"), "colour"),
        (BowSearchSpec(syntax="lucene", scoring=Qld()), "scores are those of Lucene's BM25"),
    ],
)
def test_mistakes_are_those_of_one_search(
    indexes: dict[str, Path], spec: BowSearchSpec, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as whole:
        open_retriever(str(indexes["built"]), spec)
    with pytest.raises(ConfigError, match=message) as sharded:
        open_sharded(str(indexes["built"]), 2, Here, spec)
    assert str(sharded.value) == str(whole.value)


def test_a_generation_that_is_replaced_while_shards_open_is_followed(tmp_path: Path) -> None:
    history = History(
        tmp_path, "unmerged", [(f"d{i}", "cat dog"[: 3 + 4 * (i % 2)]) for i in range(8)]
    )
    folder = str(history.folder / "index")
    steps = [("last", [("d9", "cat cow")]), ("merge", 1)]
    launched = []

    def launch(makers: Any) -> Here:
        if not launched:
            for step in steps:
                history.take(step)
        launched.append(len(makers))
        return Here(makers)

    sharded = open_shards(folder, BowSearchSpec(), 1, launch)
    queries = [Query("q", "cat cow")]
    expected = open_retriever(folder).search(queries, 9).table
    assert sharded.search(queries, 9).table.equals(expected) and launched == [1, 1]


def test_a_shard_copies_its_own_files_from_an_object_store(
    indexes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    uri = f"memory://{tmp_path.name}/idx"
    with storage.writing(uri) as path:
        shutil.copytree(indexes["changed"], path, dirs_exist_ok=True)
    places = []

    def launch(makers: Any) -> Here:
        group = Here(makers)
        places.extend(shard._index.folder for shard in group.objects)
        return group

    sharded = open_sharded(uri, 2, launch, BowSearchSpec())
    queries = [Query(f"q{i}", text) for i, text in enumerate(QUERIES)]
    expected = open_retriever(str(indexes["changed"])).search(queries, 50).table
    assert sharded.search(queries, 50).table.equals(expected)
    segments = [
        {each.parent.relative_to(place).as_posix() for each in place.rglob("segment.json")}
        for place in places
    ]
    assert not segments[0] & segments[1] and all(segments)
    assert segments[0] | segments[1] == set(read_manifest(indexes["changed"])["segments"])
    assert not any((place / "store").exists() for place in places)


def test_a_shard_of_another_generation_says_so(tmp_path: Path) -> None:
    history = History(tmp_path, "unmerged", [(f"d{i}", "cat") for i in range(8)])
    folder = history.folder / "index"
    manifest = read_manifest(folder)
    history.take(("merge", 1))
    with pytest.raises(ArtifactError, match="another generation has replaced"):
        Shard(Part(str(folder), manifest, tuple(manifest["segments"])), 0, BowSearchSpec())


def test_a_node_that_does_not_see_the_index_says_so(tmp_path: Path) -> None:
    part = Part(str(tmp_path / "elsewhere"), {"segments": []}, ())
    with pytest.raises(JobError, match="does not see this folder; it must be a path that every"):
        Shard(part, 0, BowSearchSpec())
