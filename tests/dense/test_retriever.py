from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from raydist.commands import embed as command
from raydist.config.base import Flags
from raydist.config.load import load
from raydist.dense.retriever import DenseRetriever
from raydist.dense.spec import DenseSearchSpec
from raydist.dense.vectors import VectorShards
from raydist.errors import ArtifactError, DataError
from raydist.models.biencoder import BiEncoder
from raydist.models.spec import EncoderPlace
from raydist.protocols import Retriever
from raydist.records import Query

APPROXIMATE = DenseSearchSpec(approximate=True)
QUERIES = [Query("q1", "the model of a query"), Query("q2", "vector"), Query("q3", "answer score")]


def embedded(corpus, model, out, *more):
    words = [f"corpus={corpus}", f"model={model}", f"out={out}", "split_bytes=4000", *more]
    command.run(load(command.Config, [], words), Flags())
    return out


@pytest.fixture(scope="module")
def folder(small_corpus, tiny_bert, tmp_path_factory):
    base = tmp_path_factory.mktemp("dense")
    BiEncoder.load(
        tiny_bert, pooling="mean", normalize=True, query_instruction="q: ", device="cpu"
    ).save(base / "model")
    return embedded(small_corpus, base / "model", base / "vec")


def test_search_ranks_by_inner_product_with_the_model_that_embedded(folder):
    retriever = DenseRetriever.open(folder, batch=2, device="cpu")
    assert isinstance(retriever, Retriever)
    run = retriever.search(QUERIES, 10)
    model = BiEncoder.load(folder.parent / "model", device="cpu")
    shards = VectorShards.open(folder)
    scores = model.encode_queries([q.text for q in QUERIES]) @ shards.read(0, len(shards)).T
    ids = np.array(shards.doc_ids.to_pylist())
    assert run.query_ids == ["q1", "q2", "q3"]
    for row, (_, docs, actual) in zip(scores, run):
        order = np.argsort(-row, kind="stable")[:10]
        np.testing.assert_allclose(actual, row[order], atol=1e-5)
        assert set(docs) == set(ids[order]) or np.allclose(np.sort(row)[-11:-9], row[order[-1]])
    assert len(retriever.search(QUERIES, 1000)) == 3 * 157
    assert len(retriever.search([], 5)) == 0


def test_the_same_command_again_finds_its_work_done(folder, small_corpus, capsys):
    embedded(small_corpus, folder.parent / "model", folder)
    assert "already built with the same configuration" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match='precision: "float32" -> "int8"'):
        embedded(small_corpus, folder.parent / "model", folder, "precision=int8")


def test_another_model_in_the_same_place_is_refused(folder, small_corpus, tiny_bert, tmp_path):
    other = BiEncoder.load(tiny_bert, pooling="mean", device="cpu")
    other.save(tmp_path / "other")
    with pytest.raises(ArtifactError, match="is another model"):
        DenseRetriever.open(
            folder, DenseSearchSpec(model=EncoderPlace(path=str(tmp_path / "other")))
        )
    moved = shutil.copytree(folder.parent / "model", tmp_path / "moved")
    there = DenseSearchSpec(model=EncoderPlace(path=str(moved)))
    assert len(DenseRetriever.open(folder, there).search(QUERIES, 1)) == 3
    embedded(small_corpus, moved, tmp_path / "vec")
    moved.rename(tmp_path / "gone")
    with pytest.raises(DataError, match="give the model that embedded it as model=PATH"):
        DenseRetriever.open(tmp_path / "vec")


def test_vectors_made_against_the_models_contract_are_searched_in_the_same_way(
    folder, small_corpus, tmp_path
):
    other = ["model.pooling=cls", "model.replace_contract=true"]
    out = embedded(small_corpus, folder.parent / "model", tmp_path / "vec", *other)
    retriever = DenseRetriever.open(out, device="cpu")
    model = BiEncoder.load(
        folder.parent / "model", pooling="cls", replace_contract=True, device="cpu"
    )
    texts = [query.text for query in QUERIES]
    np.testing.assert_array_equal(
        retriever.encoder.encode_queries(texts), model.encode_queries(texts)
    )
    assert len(retriever.search(QUERIES, 5)) == 15


@pytest.mark.parametrize("kind", ["hnsw", "ivf_pq"])
def test_an_approximate_index_reports_its_recall_and_scores_exactly(
    small_corpus, folder, tmp_path, kind
):
    out = embedded(
        small_corpus,
        folder.parent / "model",
        tmp_path / "v",
        f"ann={kind}",
        "ann.rows_per_part=100",
        "ann.probes=4",
        "ann.subvectors=16",
    )
    about = json.loads((out / "manifest.json").read_text())["ann"]
    assert about["starts"] == [0, 100] and about["recall@10"] > 0.8
    exact = DenseRetriever.open(out, device="cpu")
    near = DenseRetriever.open(out, APPROXIMATE, device="cpu")
    truth = {q: dict(zip(d, s)) for q, d, s in exact.search(QUERIES, 157)}
    run = near.search(QUERIES, 10)
    for query, docs, scores in run:
        assert len(docs) == 10
        np.testing.assert_allclose(scores, [truth[query][d] for d in docs], atol=1e-6)
    with pytest.raises(ArtifactError, match="has no approximate index"):
        DenseRetriever.open(folder, APPROXIMATE)


def test_ids_select_documents_and_missing_ones_are_told(small_corpus, folder, tmp_path):
    (tmp_path / "ids").write_text("d3\nd150\n")
    model = folder.parent / "model"
    out = embedded(small_corpus, model, tmp_path / "v", f"corpus.ids={tmp_path / 'ids'}")
    assert VectorShards.open(out).doc_ids.to_pylist() == ["d3", "d150"]
    (tmp_path / "more").write_text("d3\nnobody\n")
    with pytest.raises(DataError, match="the source lacks 1 of 2 ids: 'nobody'"):
        embedded(small_corpus, model, tmp_path / "w", f"corpus.ids={tmp_path / 'more'}")


def test_bad_lines_are_skipped_counted_and_written(small_corpus, folder, tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(small_corpus.read_text().splitlines(True)[:60]) + '{"id": "x"}\n')
    out = embedded(
        corpus,
        folder.parent / "model",
        tmp_path / "v",
        "corpus.on_bad=skip",
        f"corpus.rejects={tmp_path / 'rejects.jsonl'}",
    )
    assert json.loads((out / "manifest.json").read_text())["rejected"] == 1
    assert json.loads((tmp_path / "rejects.jsonl").read_text())["line"] == 61
    assert "1 bad line skipped" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(small_corpus, folder, tmp_path, capsys):
    words = [f"corpus={small_corpus}", f"model={folder.parent / 'model'}", f"out={tmp_path / 'v'}"]
    command.run(load(command.Config, [], words), Flags(dry_run=True))
    assert "would embed 1 split of" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


def test_a_search_among_some_documents_is_the_search_of_all_without_the_others(folder):
    retriever = DenseRetriever.open(folder, batch=2, device="cpu")
    some = set(retriever.doc_ids.to_pylist()[::7])
    among = retriever.only([*some, "nowhere"]).search(QUERIES, 10)
    for (_, docs, scores), (_, all_docs, all_scores) in zip(among, retriever.search(QUERIES, 157)):
        expected = [(d, s) for d, s in zip(all_docs, all_scores.tolist()) if d in some][:10]
        assert list(zip(docs, scores.tolist())) == expected
    assert len(retriever.only([]).search(QUERIES, 10)) == 0
