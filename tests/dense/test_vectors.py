from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raydist.dense.files import VectorWriter
from raydist.dense.forms import PRECISIONS, decode, encode
from raydist.dense.vectors import VectorShards
from raydist.errors import ArtifactError, ConfigError


def written(tmp_path, vectors, cuts, precision="float32"):
    edges = [0, *cuts, len(vectors)]
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        with VectorWriter(tmp_path / "shards" / f"{i:05d}", vectors.shape[1], precision) as writer:
            for row in range(a, b, 3):
                stop = min(row + 3, b)
                writer.append([f"d{j}" for j in range(row, stop)], vectors[row:stop])
    facts = {"dimension": vectors.shape[1], "precision": precision, "documents": len(vectors)}
    return VectorShards.map(tmp_path, {**facts, "shards": len(edges) - 1})


@pytest.mark.parametrize("precision", PRECISIONS)
def test_shards_read_as_one_sequence_of_rows(tmp_path, precision):
    vectors = np.random.default_rng(0).normal(size=(23, 16)).astype(np.float32)
    shards = written(tmp_path, vectors, [5, 5, 17], precision)  # one of them empty
    expected = decode(*encode(vectors, precision), precision, 16)
    assert len(shards) == 23
    assert shards.doc_ids.to_pylist() == [f"d{i}" for i in range(23)]
    np.testing.assert_array_equal(shards.read(0, 23), expected)
    np.testing.assert_array_equal(shards.read(4, 18), expected[4:18])
    rows = np.array([22, 0, 5, 5, 16])
    np.testing.assert_array_equal(shards.take(rows), expected[rows])
    assert shards.ids_at(rows).to_pylist() == ["d22", "d0", "d5", "d5", "d16"]
    assert shards.ids_at(rows[:0]).to_pylist() == []
    blocks = list(shards.blocks(8))
    assert [start for start, _ in blocks] == [0, 8, 16]
    np.testing.assert_array_equal(np.concatenate([b for _, b in blocks]), expected)


def test_float32_is_mapped_not_copied(tmp_path):
    vectors = np.ones((9, 4), np.float32)
    shards = written(tmp_path, vectors, [])
    before = pa.total_allocated_bytes()
    view = shards.read(0, 3)
    assert not view.flags.writeable and pa.total_allocated_bytes() == before
    ids = shards.doc_ids
    assert len(ids) == 9 and pa.total_allocated_bytes() == before


@given(seed=st.integers(0, 2**16), dimension=st.sampled_from([8, 24]))
def test_quantised_vectors_keep_their_promises(seed, dimension):
    vectors = np.random.default_rng(seed).normal(size=(6, dimension)).astype(np.float32)
    vectors[0] = 0
    for precision, tolerance in (("float16", 1e-3), ("int8", 1 / 254)):
        back = decode(*encode(vectors, precision), precision, dimension)
        scale = np.abs(vectors).max(axis=1, keepdims=True)
        assert (np.abs(back - vectors) <= tolerance * scale * 1.01).all()
    bits = decode(*encode(vectors, "binary"), "binary", dimension)
    np.testing.assert_array_equal(bits, np.where(vectors > 0, 1, -1))
    assert encode(vectors, "binary")[0].shape == (6, dimension // 8)


def test_bfloat16_is_the_nearest_even_as_torch_has_it():
    bits = np.random.default_rng(3).integers(0, 1 << 32, 4096, np.uint32)
    bits[:4] = [0x3F808000, 0x3F818000, 0x3F808001, 0x80000001]  # ties, above one, the smallest
    values = bits.view(np.float32).reshape(256, 16)
    values = np.where(np.isfinite(values) & (np.abs(values) < 3e38), values, 1).astype(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    stored, scale = encode(values, "bfloat16")
    assert stored.dtype == np.uint16 and scale is None
    np.testing.assert_array_equal(decode(stored, None, "bfloat16", 16), expected)


def test_what_float16_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match="a value of 70000, float16 ends at 65504"):
        encode(np.array([[1, -70000]], np.float32), "float16")


def test_a_damaged_or_missing_shard_is_named(tmp_path):
    vectors = np.ones((9, 4), np.float32)
    written(tmp_path, vectors, [4])
    file = tmp_path / "shards" / "00001" / "vectors.arrow"
    file.write_bytes(file.read_bytes()[:-20])
    facts = {"dimension": 4, "precision": "float32", "documents": 9, "shards": 1}
    with pytest.raises(
        ArtifactError,
        match=r"00001/vectors\.arrow: \d+ bytes, expected \d+; embed the corpus again",
    ):
        VectorShards.map(tmp_path, {**facts, "shards": 2})
    with pytest.raises(ArtifactError, match="is not of the manifest's dimension"):
        VectorShards.map(tmp_path, {**facts, "dimension": 8})
    with pytest.raises(ArtifactError, match="4 vectors, the manifest says 9"):
        VectorShards.map(tmp_path, facts)
