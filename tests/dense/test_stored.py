"""Search on the stored form: whole-number products and differing bits, exact scores of the best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raydist.cli import main
from raydist.dense.exact import exact_search
from raydist.dense.files import FINE, VectorWriter
from raydist.dense.forms import encode
from raydist.dense.recall import recall, sample
from raydist.dense.segments import SHARDS
from raydist.dense.stored import rescored_search, stored_search
from raydist.dense.vectors import VectorShards
from raydist.manifest import read_manifest
from raydist.shard_files import shard_path

D, N = 40, 600
RNG = np.random.default_rng(5)
CENTRES = RNG.normal(size=(12, D))
VECTORS = (CENTRES[RNG.integers(0, 12, N)] + RNG.normal(size=(N, D))).astype(np.float32)
QUERIES = (CENTRES[:7] + RNG.normal(size=(7, D))).astype(np.float32)


def shards_of(folder: Path, precision: str, rescore: str = "none") -> VectorShards:
    for number, start in enumerate((0, 250)):
        part = VECTORS[start : [250, N][number]]
        with VectorWriter(shard_path(folder / SHARDS, number), D, precision, rescore) as writer:
            writer.append([f"d{start + i}" for i in range(len(part))], part)
    facts = {"dimension": D, "precision": precision, "rescore_precision": rescore}
    return VectorShards.map(folder, {**facts, "shards": 2, "documents": N})


@pytest.mark.parametrize("batch", [1, 3, 256])
@pytest.mark.parametrize("allowed", [None, RNG.random(N) < 0.3])
def test_int8_candidates_are_the_best_by_products_of_whole_numbers(tmp_path, batch, allowed):
    shards = shards_of(tmp_path, "int8")
    stored, scale = encode(VECTORS, "int8")
    whole = encode(QUERIES, "int8")[0].astype(np.int64) @ stored.astype(np.int64).T
    scores = whole.astype(np.float32) * scale
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :50]
    rows = stored_search(shards, QUERIES, 50, block=128, batch=batch, allowed_N=allowed)
    np.testing.assert_array_equal(rows, expected)


def test_binary_candidates_are_those_with_the_fewest_differing_signs_in_input_order(tmp_path):
    shards = shards_of(tmp_path, "binary")
    differing = ((QUERIES > 0)[:, None] != (VECTORS > 0)[None]).sum(axis=2)
    expected = np.argsort(differing, axis=1, kind="stable")[:, :70]
    np.testing.assert_array_equal(stored_search(shards, QUERIES, 70, block=100), expected)


@pytest.mark.parametrize(
    ("precision", "rescore", "floor"),
    [("int8", "float32", 1.0), ("int8", "float16", 0.98), ("binary", "float32", 0.6)],
)
def test_the_best_candidates_have_the_scores_of_the_finer_form(tmp_path, precision, rescore, floor):
    shards = shards_of(tmp_path, precision, rescore)
    scores, rows = rescored_search(shards, QUERIES, 10, 4)
    finer = VECTORS.astype(rescore).astype(np.float32)
    for query, own, of in zip(QUERIES, rows, scores):
        np.testing.assert_allclose(of, finer[own] @ query, rtol=1e-5)
        assert (np.diff(of) <= 0).all()
    found = recall(lambda q, k: rescored_search(shards, q, k, 4), shards.finest, QUERIES)
    assert found >= floor
    everything = rescored_search(shards, QUERIES, 10, N)[1]  # all are candidates
    np.testing.assert_array_equal(everything, exact_search(shards.finest, QUERIES, 10)[1])
    assert len(sample(N)) == 200


def test_two_forms_are_built_searched_and_verified_by_the_command_line(
    small_corpus, tiny_bert, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text('{"id": "q1", "text": "the model of a query"}\n')
    embed = ["embed", f"corpus={small_corpus}", f"model={tiny_bert}"]
    assert main([*embed, "out=full"]) == 0
    forms = ["precision=int8", "rescore_precision=float32"]
    assert main([*embed, "out=two", *forms]) == 0
    manifest = read_manifest("two")
    shallow, deep = (manifest[f"recall@10_depth_{depth}"] for depth in (1, 4))
    assert 0 < shallow <= deep <= 1 and manifest["recall_queries"] == "157 documents"
    for index, more in (("full", []), ("two", ["rescore_depth=16"])):
        words = ["search", f"index={index}", "queries=q.jsonl", "k=10", f"out={index}.txt", *more]
        assert main(words) == 0
    mine, exact = (
        [line.split() for line in (tmp_path / f"{name}.txt").read_text().splitlines()]
        for name in ("two", "full")
    )
    assert len({each[2] for each in mine}) == 10  # equal texts differ by rounding alone
    np.testing.assert_allclose(*(np.float64([e[4] for e in r]) for r in (mine, exact)), rtol=1e-5)
    assert main([*embed, "out=no", "precision=float16", "rescore_precision=int8"]) == 2
    assert "rescore_precision=int8: is not finer than precision=float16" in capsys.readouterr().err
    assert main(["verify", "two"]) == 0
    path = tmp_path / "two" / "shards" / "00000" / FINE
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert main(["verify", "two"]) == 2
    assert "rescore.arrow: a checksum does not match" in capsys.readouterr().err
