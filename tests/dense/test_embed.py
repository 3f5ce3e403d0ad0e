"""Embedding against sentence-transformers, and what a crash leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sentence_transformers import SentenceTransformer

from raydist.data.readers import read_documents, read_split
from raydist.data.splits import plan_splits
from raydist.dense.embed import embed_corpus, windows_of
from raydist.dense.spec import EmbeddingSpec
from raydist.dense.vectors import VectorShards
from raydist.errors import ConfigError, DataError
from raydist.models.biencoder import BiEncoder
from raydist.models.encode import WINDOW
from raydist.models.spec import EncoderSource


def read(split, rejects):
    return read_split(split, rejects=rejects)


def contents(corpus) -> list[str]:
    table = pa.concat_tables(read_documents(corpus))
    return [
        f"{t}\n{x}" if t else x for t, x in zip(*(table[c].to_pylist() for c in ("title", "text")))
    ]


def embed(corpus, folder, model, split_bytes=4000, window=WINDOW, settings=None, **spec):
    splits = plan_splits(corpus, split_bytes=split_bytes)
    source = EncoderSource(path=str(model), **settings or {})
    facts = embed_corpus(splits, read, folder, source, EmbeddingSpec(**spec), window=window)
    return VectorShards.map(folder, facts), facts


def test_vectors_are_those_of_sentence_transformers(small_corpus, tiny_bert, tmp_path):
    options = {"pooling": "mean", "normalize": True, "document_instruction": "passage: "}
    shards, facts = embed(small_corpus, tmp_path / "v", tiny_bert, settings=options)
    BiEncoder.load(tiny_bert, device="cpu", **options).save(tmp_path / "m")
    theirs = SentenceTransformer(str(tmp_path / "m"), device="cpu")
    expected = theirs.encode_document(contents(small_corpus))
    assert shards.doc_ids.to_pylist() == [f"d{i}" for i in range(157)]
    assert np.abs(shards.read(0, 157) - expected).max() < 1e-5
    assert facts["shards"] > 5 and facts["documents"] == 157


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float16", 1e-3), ("int8", 5e-3), ("binary", None)]
)
def test_stored_precision_and_dimension_are_options(
    small_corpus, tiny_bert, tmp_path, precision, tolerance
):
    options = {"pooling": "mean", "normalize": True}
    whole, _ = embed(small_corpus, tmp_path / "whole", tiny_bert, settings=options)
    few, facts = embed(
        small_corpus,
        tmp_path / "few",
        tiny_bert,
        settings=options,
        dimension=16,
        precision=precision,
    )
    prefix = whole.read(0, 157)[:, :16]
    prefix = prefix / np.linalg.norm(prefix, axis=1, keepdims=True)
    assert facts["dimension"] == 16
    if tolerance is None:
        np.testing.assert_array_equal(few.read(0, 157), np.where(prefix > 0, 1, -1))
    else:
        assert np.abs(few.read(0, 157) - prefix).max() < tolerance


def test_splits_and_windows_do_not_change_vectors(small_corpus, tiny_bert, tmp_path):
    one, _ = embed(small_corpus, tmp_path / "a", tiny_bert, split_bytes=1 << 30)
    many, facts = embed(small_corpus, tmp_path / "b", tiny_bert, window=7, max_tokens=90)
    assert facts["padding_waste"] == 0  # texts lie end to end
    assert np.abs(one.read(0, 157) - many.read(0, 157)).max() < 1e-5
    assert one.doc_ids.equals(many.doc_ids)


def test_a_document_that_occurs_twice_is_named(small_corpus, tiny_bert, tmp_path):
    twice = tmp_path / "corpus.jsonl"
    twice.write_text(small_corpus.read_text() + json.dumps({"id": "d7", "text": "again"}) + "\n")
    with pytest.raises(
        DataError, match=r"1 document with .*: document 158 has the id 'd7' of document 8"
    ):
        embed(twice, tmp_path / "v", tiny_bert)


def test_a_contradicted_model_is_refused_before_anything_is_written(minilm, tmp_path, small_corpus):
    with pytest.raises(ConfigError, match=r"model\.pooling='cls' but 'mean'"):
        embed(small_corpus, tmp_path / "v", minilm, settings={"pooling": "cls"})
    assert not (tmp_path / "v").exists()


def test_windows_end_by_documents_or_by_characters():
    table = pa.table(
        {"doc_id": list("abcde"), "title": ["", "t", None, "", ""], "text": ["x" * 9] * 5}
    )
    windows = list(windows_of([table], 3))
    assert [ids.to_pylist() for ids, _, _ in windows] == [["a", "b", "c"], ["d", "e"]]
    assert windows[0][1][1] == "t\n" + "x" * 9
    assert [len(ids) for ids, _, _ in windows_of([table], 100, characters=18)] == [2, 2, 1]


def crash_after(number, inner, split, rejects):
    """Reads a split, but ends the whole process at the given one."""
    if split["start"] >= number:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(split, rejects)


def test_a_killed_process_is_continued_and_equals_an_undisturbed_run(
    small_corpus, tiny_bert, tmp_path
):
    program = (
        "import sys\n"
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from raydist.data.readers import plan_splits\n"
        "from raydist.dense.embed import embed_corpus\n"
        "from raydist.models.spec import EncoderSource\n"
        "from tests.dense.test_embed import crash_after, read\n"
        "corpus, model, out = map(Path, sys.argv[1:])\n"
        "splits = plan_splits(corpus, split_bytes=4000)\n"
        "read = partial(crash_after, splits[4]['start'], read)\n"
        "embed_corpus(splits, read, out, EncoderSource(path=str(model)))\n"
    )
    command = [
        sys.executable,
        "-c",
        program,
        str(small_corpus),
        str(tiny_bert),
        str(tmp_path / "v"),
    ]
    killed = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    published = {p: p.stat().st_mtime_ns for p in (tmp_path / "v/shards").glob("0*/vectors.arrow")}
    assert len(published) == 4
    resumed, _ = embed(small_corpus, tmp_path / "v", tiny_bert)
    undisturbed, _ = embed(small_corpus, tmp_path / "u", tiny_bert)
    assert {p: p.stat().st_mtime_ns for p in published} == published, "finished shards were redone"
    assert resumed.doc_ids.equals(undisturbed.doc_ids)
    np.testing.assert_array_equal(resumed.read(0, 157), undisturbed.read(0, 157))


def kill_once(flag, inner, split, rejects):
    """Reads a split, but the first actor that comes to the third one dies."""
    if split["start"] > 8000 and not Path(flag).exists():
        Path(flag).touch()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(split, rejects)


@pytest.mark.ray
def test_a_killed_actor_is_replaced_and_the_result_is_the_same(
    small_corpus, tiny_bert, tmp_path, ray_cluster
):
    splits = plan_splits(small_corpus, split_bytes=4000)
    facts = embed_corpus(
        splits,
        partial(kill_once, str(tmp_path / "flag"), read),
        tmp_path / "v",
        EncoderSource(path=str(tiny_bert)),
        EmbeddingSpec(workers=2),
    )
    disturbed = VectorShards.map(tmp_path / "v", facts)
    alone, _ = embed(small_corpus, tmp_path / "u", tiny_bert)
    assert (tmp_path / "flag").exists()
    assert disturbed.doc_ids.equals(alone.doc_ids)
    assert np.abs(disturbed.read(0, 157) - alone.read(0, 157)).max() < 1e-6
