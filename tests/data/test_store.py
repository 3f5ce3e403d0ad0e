from __future__ import annotations

import json
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydist.data.store import idhash, piece
from raydist.data.store.build import concatenate
from raydist.data.store.reader import DocumentStore
from raydist.data.store.writer import StoreWriter
from raydist.errors import ArtifactError
from raydist.records import DOCUMENTS, Document


def table(rows: list[tuple[str, str, str]]) -> pa.Table:
    columns = list(zip(*rows)) or [(), (), ()]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, DOCUMENTS)], DOCUMENTS)


ROWS = [(f"d{i}", "" if i % 3 else f"title {i}", f"text {i} " * (i % 50)) for i in range(2000)]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_file_that_is_removed_while_the_store_opens_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DocumentStore.create([table(ROWS[:5])], tmp_path / "s")
    memory_map = pa.memory_map

    def too_late(path: str) -> pa.MemoryMappedFile:
        Path(path).unlink()
        return memory_map(path)

    monkeypatch.setattr(pa, "memory_map", too_late)
    with pytest.raises(ArtifactError, match="it is missing"):
        DocumentStore.open(tmp_path / "s")


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
def test_documents_are_found_by_id_and_by_position(tmp_path: Path, codec: str) -> None:
    store = DocumentStore.create(
        [table(ROWS[:700]), table(ROWS[700:])], tmp_path / "s", codec=codec
    )  # type: ignore[arg-type]
    assert len(store) == 2000 and store.facts["blocks"] > 3
    assert store.facts["empty"] == sum(not title and not text for _, title, text in ROWS)
    wanted = ["d1999", "nowhere", "d0", "d1234", "d0", ""]
    expected = [Document(i, t, title) for i, title, t in (ROWS[1999], ROWS[0], ROWS[1234], ROWS[0])]
    documents = store.get(wanted)
    assert documents == [expected[0], None, expected[1], expected[2], expected[3], None]
    positions = [5, 1999, 0, 5, 1000]
    assert [tuple(r.values()) for r in store.rows(positions).to_pylist()] == [
        ROWS[p] for p in positions
    ]
    assert store.rows([]).schema == DOCUMENTS and store.get([]) == []
    whole = pa.concat_tables(store.tables())
    assert whole.equals(table(ROWS))
    store.verify()
    with pytest.raises(IndexError, match="0 to 1999"):
        store.rows([2000])
    with pytest.raises(IndexError):
        store.rows([-1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=40), st.data())
def test_joined_shards_hold_the_same_documents_as_one_store(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    edges = [0, *cuts, len(rows)]
    shards = []
    for number, (a, b) in enumerate(zip(edges, edges[1:])):  # noqa: RUF007
        writer = StoreWriter(folder / str(number))
        writer.append(table(rows[a:b]))
        writer.close(index=data.draw(st.booleans()))
        shards.append(folder / str(number))
    facts = concatenate(shards, folder / "joined")
    store = DocumentStore.open(folder / "joined")
    assert pa.concat_tables([DOCUMENTS.empty_table(), *store.tables()]).equals(table(rows))
    first = {row[0]: row for row in reversed(rows)}
    ids = [*first, "\0 none"]
    expected = [Document(r[0], r[2], r[1]) for r in first.values()]
    assert store.get(ids) == [*expected, None]
    assert facts["duplicates"] == len(rows) - len(first) and facts["documents"] == len(rows)


def test_the_bytes_depend_on_the_documents_alone(tmp_path: Path) -> None:
    for name, size in (("a", 2000), ("b", 1), ("c", 333)):
        writer = StoreWriter(tmp_path / name)
        for start in range(0, 2000, size):
            writer.append(table(ROWS[start : start + size]))
        writer.close()
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b") == files_of(tmp_path / "c")


def test_joining_links_parts_instead_of_copying_them(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a")
    writer.append(table(ROWS))
    writer.close()
    concatenate([tmp_path / "a"], tmp_path / "b")
    first, second = (tmp_path / n / "parts" / "00000.arrow" for n in "ab")
    assert first.stat().st_ino == second.stat().st_ino
    # Any Arrow reader can read a part.
    with pa.ipc.open_stream(first) as reader:
        assert reader.read_all().num_rows == 2000


def test_every_damaged_file_is_noticed_and_named(tmp_path: Path) -> None:
    DocumentStore.create([table(ROWS)], tmp_path / "s")
    for file in sorted(p for p in (tmp_path / "s").rglob("*") if p.is_file()):
        good = file.read_bytes()
        middle = len(good) // 2
        # The part's first bytes are its schema, which is known; damage to it changes nothing.
        damages = {
            "flipped": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
            "cut": good[:-3],
            "empty": b"",
        }
        for kind, bad in damages.items():
            file.write_bytes(bad)
            with pytest.raises(ArtifactError) as caught:
                store = DocumentStore.open(tmp_path / "s")
                store.get(["d7", "d1000"])
                store.verify()
            assert file.name in str(caught.value), (file, kind)
        file.write_bytes(good)
    DocumentStore.open(tmp_path / "s").verify()
    (tmp_path / "s" / "hashes.npy").unlink()
    with pytest.raises(ArtifactError, match=r"hashes\.npy is damaged: it is missing"):
        DocumentStore.open(tmp_path / "s").get(["d7"])


def test_an_unfinished_a_foreign_and_a_newer_folder_are_refused(tmp_path: Path) -> None:
    StoreWriter(tmp_path / "open").append(table(ROWS))
    with pytest.raises(ArtifactError, match=r"not a complete document store: store\.json"):
        DocumentStore.open(tmp_path / "open")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/store.json").write_text('{"crc32": 1, "format": "other"}')
    with pytest.raises(ArtifactError, match="not of a document store"):
        DocumentStore.open(tmp_path / "foreign")
    DocumentStore.create([table(ROWS)], tmp_path / "new")
    about = json.loads((tmp_path / "new/store.json").read_text())
    (tmp_path / "new/store.json").write_text(json.dumps({**about, "version": 99}))
    with pytest.raises(ArtifactError, match="version 99; this raydist reads up to 2"):
        DocumentStore.open(tmp_path / "new")
    with pytest.raises(ArtifactError):
        DocumentStore.open(tmp_path / "none")


def test_an_empty_store_is_a_store(tmp_path: Path) -> None:
    store = DocumentStore.create([], tmp_path / "s")
    assert len(store) == 0 and store.get(["a"]) == [None] and list(store.tables()) == []
    store.verify()


def test_a_store_of_many_documents_opens_in_milliseconds(tmp_path: Path) -> None:
    rows = table([(f"document-{i}", "", "x" * 100) for i in range(200_000)])
    DocumentStore.create([rows], tmp_path / "s")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        store = DocumentStore.open(tmp_path / "s")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05
    assert store.positions(["document-150000"]).tolist() == [150_000]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=60))
def test_duplicates_are_those_that_a_dictionary_finds(ids: list[str]) -> None:
    duplicates = idhash.find_duplicates(pa.array(ids, pa.string()))
    assert duplicates.count == len(ids) - len(set(ids))
    for text, first, again in duplicates.examples:
        assert first == ids.index(text) < again and ids[again] == text


@given(st.lists(st.binary(max_size=40).map(lambda b: b.decode("latin-1")), min_size=1), st.data())
def test_a_hash_depends_on_the_id_alone(ids: list[str], data: st.DataObject) -> None:
    whole = idhash.hash_ids(pa.array(["x", *ids, "y"], pa.large_string()))
    at = data.draw(st.integers(0, len(ids) - 1))
    sliced = pa.array(["x", *ids, "y"], pa.string()).slice(1 + at, 1)
    assert idhash.hash_ids(sliced)[0] == whole[1 + at]
    assert idhash.hash_ids(pa.chunked_array([ids[:at], ids[at:]], pa.string())).tolist() == (
        whole[1:-1].tolist()
    )


def by_definition(text: str) -> int:
    data, mask = text.encode(), (1 << 64) - 1
    mixed = len(data)
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8], "little")
        mixed = ((mixed ^ word) * 0x9E3779B97F4A7C15) & mask
        mixed ^= mixed >> 32
    return (mixed * 0xD6E8FEB86659FD93) & mask


def test_hashes_are_the_same_on_every_machine_and_spread_well() -> None:
    known = ["", "a", "12345678", "123456789", "é" * 20]
    assert idhash.hash_ids(pa.array(known)).tolist() == [by_definition(each) for each in known]
    assert by_definition("123456789") >> 32 == 2962735400  # the hash of version 1
    many = idhash.hash_ids(pa.array([f"doc{i}" for i in range(100_000)]))
    assert len(np.unique(many)) == 100_000  # n²/2·2⁻⁶⁴ pairs are expected to meet by chance


def test_ids_whose_hashes_meet_are_still_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idhash, "_hashes", lambda ids: np.zeros(len(ids), np.uint64))
    index = idhash.HashIndex.of(pa.array([f"id{i}" for i in range(50)], pa.large_string()))
    assert index.find(pa.array(["id49", "id0", "no", "id7"])).tolist() == [49, 0, -1, 7]
    twice = idhash.find_duplicates(pa.array(["a", "b", "a", "c", "b", "a"]))
    assert twice.count == 3 and twice.examples == (("a", 0, 2), ("b", 1, 4), ("a", 0, 5))


def test_more_ids_than_are_sorted_in_memory_are_sorted_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    texts = [f"doc{i * 7919 % 40_000}" for i in range(50_000)]  # the last 10,000 repeat the first
    ids = pa.array(texts, pa.large_string())
    hashes = idhash.hash_ids(ids)
    monkeypatch.setattr(idhash, "_RUN", 1500)
    monkeypatch.setattr(idhash, "_SLICE", 700)
    parts = list(idhash.sorted_hashes([ids.slice(0, 123), ids.slice(123)], tmp_path))
    rows = np.concatenate([rows for _, rows in parts])
    assert rows.tolist() == np.argsort(hashes, kind="stable").tolist() and len(parts) == 256
    assert np.concatenate([part for part, _ in parts]).tolist() == hashes[rows].tolist()
    twice = idhash.find_duplicates(lambda: (ids.slice(i, 999) for i in range(0, 50_000, 999)))
    assert twice.count == 10_000
    assert twice.examples == tuple((texts[i], i, 40_000 + i) for i in range(10))
    monkeypatch.setattr(idhash, "_SUSPECTS", 100)
    assert idhash.find_duplicates(ids) == twice
    index = idhash.HashIndex.of(ids)
    assert index.find(ids.slice(40_000)).tolist() == list(range(10_000))
    assert not list(tmp_path.iterdir())


def test_a_lookup_checks_the_pages_that_it_touches(tmp_path: Path) -> None:
    count = 60_000
    rows = table([(f"document-{i}", "", "") for i in range(count)])
    DocumentStore.create([rows], tmp_path / "s")
    wanted, hashes = "document-31234", np.load(tmp_path / "s/hashes.npy")
    mine = idhash.hash_ids(pa.array([wanted]))[0]
    file, data = tmp_path / "s/hashes.npy", (tmp_path / "s/hashes.npy").read_bytes()
    begin, at = len(data) - hashes.nbytes, 8 * int(np.searchsorted(hashes, mine))
    far = begin + (at + len(data) // 2) % hashes.nbytes
    file.write_bytes(data[:far] + bytes([data[far] ^ 1]) + data[far + 1 :])
    store = DocumentStore.open(tmp_path / "s")
    assert store.positions([wanted]).tolist() == [31_234]
    with pytest.raises(ArtifactError, match=r"hashes\.npy is damaged"):
        store.verify()
    near = begin + at
    file.write_bytes(data[:near] + bytes([data[near] ^ 1]) + data[near + 1 :])
    with pytest.raises(ArtifactError, match=r"hashes\.npy is damaged"):
        DocumentStore.open(tmp_path / "s").positions([wanted])


def test_a_store_of_version_1_is_read(tmp_path: Path) -> None:
    store = tmp_path / "s"
    DocumentStore.create([table(ROWS)], store)
    hashes = (np.load(store / "hashes.npy") >> np.uint64(32)).astype(np.uint32)
    np.save(store / "hashes.npy", hashes)
    about = json.loads((store / "store.json").read_text())
    for name in ("fences.npy", "sums.npy"):
        (store / name).unlink()
        about["files"].pop(name, None)
    for name, entry in about["files"].items():
        data = (store / name).read_bytes()
        entry |= {"bytes": len(data), "crc32": zlib.crc32(data)}
    del about["sums"], about["crc32"]
    about["version"] = 1
    about["crc32"] = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    (store / "store.json").write_text(json.dumps(about, sort_keys=True))
    old = DocumentStore.open(store)
    old.verify()
    assert old.positions([f"d{i}" for i in range(2000)] + ["x"]).tolist() == [*range(2000), -1]
    concatenate([store], tmp_path / "new")
    assert json.loads((tmp_path / "new/store.json").read_text())["version"] == 2
    assert DocumentStore.open(tmp_path / "new").positions(["d1234"]).tolist() == [1234]


@pytest.mark.parametrize("dtype", ["u1", "<u4", "<u8", "<i8", "<f4"])
@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (2, 3), ()])
def test_arrays_are_read_as_numpy_reads_them(
    dtype: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    array = np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    data = (tmp_path / "a.npy").read_bytes()
    read = piece._array(pa.py_buffer(data))
    assert read.dtype == array.dtype and np.array_equal(read, array)
    for at in (0, 9, 20, 40, 60):  # of the header
        with pytest.raises(ValueError):
            piece._array(pa.py_buffer(data[:at] + b"\xff" + data[at + 1 :]))
