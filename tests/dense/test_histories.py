"""Whatever was appended, deleted, replaced and merged: vectors are those of the live documents.

A history is a list of steps on one folder; a plain dictionary says what is live after each.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raydist import generations
from raydist.artefact import Output
from raydist.checks import Report
from raydist.dense.ann import AnnIndex, build_ann
from raydist.dense.changes import VECTORS, merge_into, merge_tail
from raydist.dense.exact import exact_search
from raydist.dense.files import VectorWriter
from raydist.dense.segments import ANN, LAYOUT, SHARDS
from raydist.dense.spec import AnnSpec
from raydist.dense.stored import rescored_search
from raydist.dense.vectors import VectorShards
from raydist.dense.verify import verify_vectors
from raydist.errors import ArtifactError, ConfigError, DataError, JobError
from raydist.generations import purge_runs
from raydist.manifest import read_manifest
from raydist.shard_files import shard_path

D = 16
IDS = [f"d{number}" for number in range(12)]
ROWS = st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 40)), min_size=1, max_size=9)
STEP = st.one_of(
    st.tuples(st.sampled_from(["first", "last"]), ROWS),
    st.tuples(st.just("delete"), st.sets(st.sampled_from(IDS), min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["merge", "purge", "tail"]), st.integers(1, 3)),
)
QUERIES = np.random.default_rng(1).normal(size=(3, D)).astype(np.float32)
HNSW = AnnSpec(kind="hnsw", rows_per_part=4, links=4)


def vector_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=D).astype(np.float32)


def embed(rows, folder: Path, forms="float32", ann: AnnSpec | None = None) -> dict[str, Any]:
    """Writes shards of up to four rows, as `embed_parts` does, and the approximate index.

    Of passages, a document has up to three, and a column says its seed.
    """
    forms, passages = forms.removesuffix(" passages"), forms.endswith(" passages")
    precision, rescore = (*forms.split("+"), "none")[:2]
    documents = len(rows)
    for number, start in enumerate(range(0, documents, 4)):
        part, columns = rows[start : start + 4], None
        if passages:
            part = [(f"{doc}#{i}", seed + i) for doc, seed in part for i in range(1 + seed % 3)]
            columns = pa.table({"seed": pa.array([seed for _, seed in part], pa.int64())})
            documents += len(part) - len(rows[start : start + 4])
        with VectorWriter(shard_path(folder / SHARDS, number), D, precision, rescore) as writer:
            vectors = np.array([vector_of(row[1]) for row in part])
            writer.append([row[0] for row in part], vectors, columns)
    facts = {"dimension": D, "precision": precision, "shards": -(-len(rows) // 4)}
    facts |= {"chunk": {}, "columns": {"seed": "int64"}} if passages else {}
    facts |= {"rescore_precision": rescore} if rescore != "none" else {}
    facts |= {"documents": documents, "tokens": 0, "rejected": 0, "seconds": 0.0, "blank_id": None}
    return facts if ann is None else {**facts, ANN: build_ann(folder, facts, ann)}


def build(rows, folder: Path, precision="float32", ann=None, duplicates="error") -> Path:
    config = {} if ann is None else {ANN: asdict(ann)}
    output = Output.open(folder, kind="vectors", config=config, inputs={})
    facts = embed(rows, folder, precision, ann)
    output.finish(**facts | VECTORS.mark_repeats(folder, facts, duplicates))
    return folder


def append(rows, folder: Path, key: str, precision="float32", ann=None, duplicates="error"):
    return VECTORS.append(
        lambda side: embed(rows, side, precision, ann),
        folder,
        key=[key],
        inputs={"corpus": key},
        duplicates=duplicates,
    )


def answers(folder: Path) -> tuple[list[Any], bytes, bytes]:
    shards = VectorShards.open(folder)
    if shards.fine is None:
        scores, rows = exact_search(shards, QUERIES, 7, block=8)
    else:
        scores, rows = rescored_search(shards, QUERIES, 3, 2, block=8)
    ids = [shards.ids_at(each).to_pylist() for each in rows]
    columns = None if shards.columns is None else shards.columns.to_pydict()
    return [ids, columns], scores.tobytes(), shards.finest.read(0, len(shards)).tobytes()


def check(folder: Path) -> list[str]:
    report = Report()
    verify_vectors(folder, read_manifest(folder), report)
    assert report.faults == []
    return report.pending


FORMS = ["float32", "bfloat16", "int8", "int8+float16", "binary+bfloat16", "int8+float16 passages"]


@pytest.mark.parametrize("precision", FORMS)
@settings(max_examples=10, suppress_health_check=[*HealthCheck], deadline=None)
@given(rows=ROWS, steps=st.lists(STEP, min_size=2, max_size=6))
def test_vectors_equal_those_of_the_live_documents_embedded_at_once(
    tmp_path_factory, precision, rows, steps
):
    place, live = tmp_path_factory.mktemp("history"), dict[str, int]()
    for doc_id, seed in rows:
        live.setdefault(doc_id, seed)
    folder = build(rows, place / "vec", precision, duplicates="first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generations, "MANY", 2)
        for number, (name, what) in enumerate(steps):
            if name in ("merge", "purge", "tail"):
                into = merge_into(min(what, len(live)))
                plan = {"merge": into, "purge": purge_runs, "tail": merge_tail}[name]
                VECTORS.merge(folder, plan)
            elif name == "delete":
                known = [each for each in what if each in live]
                if known and len(known) < len(live):
                    live = {key: seed for key, seed in live.items() if key not in known}
                    VECTORS.delete(folder, known)
            else:
                for doc_id, seed in what:
                    if name == "last":
                        live.pop(doc_id, None)
                    live.setdefault(doc_id, seed)
                append(what, folder, str(number), precision, duplicates=name)
    fresh = build(list(live.items()), place / "fresh", precision)
    assert answers(folder) == answers(fresh)
    manifest = read_manifest(folder)
    passages = precision.endswith(" passages")
    assert manifest["documents"] == sum(1 + seed % 3 * passages for seed in live.values())
    check(folder)
    VECTORS.merge(folder, merge_into(1))
    assert answers(folder) == answers(fresh) and check(folder) == []
    assert LAYOUT.leftovers(folder) == []


def test_an_approximate_index_follows_and_passes_over_the_deleted(tmp_path):
    rows = [(f"d{i}", i) for i in range(30)]
    folder = build(rows[:20], tmp_path / "vec", ann=HNSW)
    append(rows[20:], folder, "more", ann=HNSW)
    gone = ["d0", "d1", "d2", "d3", "d7", "d21", "d29"]  # a whole part of four, too
    VECTORS.delete(folder, gone)
    fresh = build([row for row in rows if row[0] not in gone], tmp_path / "fresh", ann=HNSW)
    for _ in range(2):
        shards = VectorShards.open(folder)
        near = AnnIndex.open(folder, read_manifest(folder))
        scores, found = near.search(shards, QUERIES, 30)
        expected, order = exact_search(shards, QUERIES, 23)
        np.testing.assert_array_equal(found[:, :23], order)  # parts of four are searched whole
        np.testing.assert_allclose(scores[:, :23], expected, rtol=1e-5)
        assert (found[:, 23:] == -1).all()
        check(folder)
        VECTORS.merge(folder, merge_into(1))
    (segment,) = read_manifest(folder)["segments"]
    for number in range(6):  # to the byte what a build leaves
        mine, built = (shard_path(each / ANN, number) for each in (folder / segment, fresh))
        assert mine.read_bytes() == built.read_bytes()


def test_a_reader_keeps_its_generation(tmp_path):
    rows = [(f"d{i}", i) for i in range(12)]
    folder = build(rows[:8], tmp_path / "vec")
    before = VectorShards.open(folder)
    append(rows[8:], folder, "more")
    VECTORS.delete(folder, ["d1", "d9"])
    between = VectorShards.open(folder)
    VECTORS.merge(folder, merge_into(2))
    assert not (folder / SHARDS).exists() and len(list(folder.glob("segments/*/*"))) == 2
    assert before.doc_ids.to_pylist() == [row[0] for row in rows[:8]]
    np.testing.assert_array_equal(before.read(0, 8), [vector_of(i) for i in range(8)])
    left = [i for i in range(12) if i not in (1, 9)]
    np.testing.assert_array_equal(between.read(0, 12), [vector_of(i) for i in left])
    assert between.ids_at(np.array([9, 1, 0])).to_pylist() == ["d11", "d2", "d0"]
    np.testing.assert_array_equal(between.take(np.array([9, 1])), [vector_of(11), vector_of(2)])


def test_the_same_again_changes_nothing_and_what_cannot_be_is_said(tmp_path):
    rows = [(f"d{i}", i) for i in range(6)]
    folder = build(rows[:3], tmp_path / "vec")
    with pytest.raises(DataError, match=r"1 document with the id of an earlier one.*'d2'"):
        append(rows[2:], folder, "a")
    assert read_manifest(folder)["documents"] == 3
    assert append(rows[3:], folder, "b")["new_documents"] == 3
    assert append(rows[3:], folder, "b") is None
    assert VECTORS.delete(folder, ["d4"])["documents"] == 5
    assert VECTORS.delete(folder, ["d4"]) is None
    with pytest.raises(DataError, match="lacks 1 of 2 document ids, the first: 'd4'"):
        VECTORS.delete(folder, ["d1", "d4"])
    with pytest.raises(DataError, match="no document would be left"):
        VECTORS.delete(folder, [row[0] for row in rows if row[0] != "d4"])
    with pytest.raises(ConfigError, match="segments = 9: there are 5 documents"):
        VECTORS.merge(folder, merge_into(9))
    assert check(folder) == [f"raydist merge out={folder} removes 1 deleted document"]
    (place,) = read_manifest(folder)["deletions"].values()
    damaged = bytearray((folder / place / "live").read_bytes())
    damaged[0] ^= 1
    (folder / place / "live").write_bytes(damaged)
    with pytest.raises(ArtifactError, match="live: is damaged"):
        VectorShards.open(folder)


def test_a_crash_before_the_manifest_leaves_the_old_generation(tmp_path, monkeypatch):
    rows = [(f"d{i}", i) for i in range(6)]
    folder = build(rows[:3], tmp_path / "vec")
    expected = answers(folder)
    changes = [lambda: append(rows[3:], folder, "b"), lambda: VECTORS.delete(folder, ["d1"])]
    for change in changes:
        with monkeypatch.context() as patch:
            patch.setattr("raydist.generations.Layout.publish", lambda *a: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                change()
        assert answers(folder) == expected
    assert LAYOUT.leftovers(folder)
    append(rows[3:], folder, "b")
    assert LAYOUT.leftovers(folder) == []
    assert VectorShards.open(folder).doc_ids.to_pylist() == [row[0] for row in rows]


def test_an_interrupted_append_continues_in_its_folder(tmp_path):
    rows = [(f"d{i}", i) for i in range(6)]
    folder = build(rows[:3], tmp_path / "vec")
    same = {"key": ["b"], "inputs": {}, "duplicates": "error", "work": [1]}

    def interrupted(side):
        (side / "half").write_text("done")
        raise JobError("the machine went down")

    def continued(side):
        assert (side / "half").read_text() == "done"
        return embed(rows[3:], side)

    with pytest.raises(JobError):
        VECTORS.append(interrupted, folder, **same)
    assert len(VectorShards.open(folder)) == 3 and len(LAYOUT.leftovers(folder)) == 1
    assert VECTORS.append(continued, folder, **same)["documents"] == 6
    assert LAYOUT.leftovers(folder) == []
