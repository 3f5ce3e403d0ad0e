"""A corpus becomes an index of a sparse model's terms, and texts are its queries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from raydist.bow.index import BowIndex
from raydist.cli import main
from raydist.data.readers import read_run
from raydist.models.biencoder import BiEncoder
from raydist.models.encode import encode_terms

TEXTS = ["retrieval of a document", "rank", "a vector index"]


@pytest.fixture(scope="module")
def index(sparse_model: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index") / "SIDX"
    command = ["embed", f"corpus={corpus}", f"model={sparse_model}", f"out={out}"]
    assert main([*command, "split_bytes=500"]) == 0
    return out


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("queries") / "q.tsv"
    path.write_text("".join(f"q{n}\t{text}\n" for n, text in enumerate(TEXTS)))
    return path


def _contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in (folder / "segments").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _scores(sparse_model: Path, corpus: Path) -> np.ndarray:
    """Returns the products of the queries' weights with the documents' in whole units."""
    model = BiEncoder.load(sparse_model, device="cpu")
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    documents = np.rint(encode_terms(model, texts, "document").dense().astype(np.float64) / 0.01)
    return encode_terms(model, TEXTS, "query").dense().astype(np.float64) @ documents.T * 0.01


def test_texts_are_ranked_by_the_products_of_weights(
    index: Path, sparse_model: Path, corpus: Path, queries: Path, tmp_path: Path
) -> None:
    assert main(["search", f"index={index}", f"queries={queries}", "k=7", f"out={tmp_path}/r"]) == 0
    run = read_run(tmp_path / "r").as_dict()
    for number, scores in enumerate(_scores(sparse_model, corpus)):
        mine = run[f"q{number}"]
        assert len(mine) == 7
        assert list(mine.values()) == pytest.approx(sorted(scores, reverse=True)[:7], rel=1e-3)
        for name, score in mine.items():
            assert score == pytest.approx(scores[int(name[1:])], rel=1e-3)


def test_the_index_knows_its_model_and_is_verified(
    index: Path, sparse_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((index / "manifest.json").read_text())
    assert manifest["kind"] == "bow-index"
    assert manifest["model"]["path"] == str(sparse_model)
    assert len(BowIndex.open(index)) == 60
    assert not (index / ".work").exists()
    assert main(["verify", str(index)]) == 0
    capsys.readouterr()
    assert main(["inspect", str(index), "format=json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(sparse_model)


@pytest.mark.ray
def test_two_workers_write_the_same_bytes(
    index: Path, sparse_model: Path, corpus: Path, tmp_path: Path
) -> None:
    command = ["embed", f"corpus={corpus}", f"model={sparse_model}", f"out={tmp_path}/two"]
    assert main([*command, "split_bytes=500", "workers=2"]) == 0
    assert _contents(tmp_path / "two") == _contents(index)


def test_an_interrupted_embedding_is_continued(
    index: Path, sparse_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raydist.sparse import embed

    out = tmp_path / "again"
    command = ["embed", f"corpus={corpus}", f"model={sparse_model}", f"out={out}"]
    write, written = embed.write_spill, []

    def failing(target: Path, postings: object) -> dict[str, int]:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(target)
        return write(target, postings)

    monkeypatch.setattr(embed, "write_spill", failing)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        raise SystemExit(main([*command, "split_bytes=500"]))
    monkeypatch.setattr(embed, "write_spill", write)
    before = len(list(out.glob(".work/splits/*.done")))
    assert before == 3
    assert main([*command, "split_bytes=500"]) == 0
    assert _contents(out) == _contents(index)


def test_another_model_is_refused_before_the_search(
    index: Path, tiny_bert: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", f"index={index}", f"queries={queries}", f"out={tmp_path}/r"]
    assert main([*command, f"model={tiny_bert}"]) == 2
    assert "is another model" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_options_of_vectors_are_refused(
    sparse_model: Path,
    tiny_bert: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["embed", f"corpus={corpus}", f"model={sparse_model}", f"out={tmp_path}/x"]
    assert main([*command, "precision=int8"]) == 2
    assert "precision: is for vectors" in capsys.readouterr().err
    command = ["embed", f"corpus={corpus}", f"model={tiny_bert}", f"out={tmp_path}/x"]
    assert main([*command, "unit=0.1"]) == 2
    assert "unit: is for models that weigh terms" in capsys.readouterr().err


def test_models_that_cannot_weigh_terms_are_named_before_work(
    tiny_mlm: Path,
    sparse_model: Path,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    BiEncoder.load(tiny_mlm, kind="sparse", query_encoder="table", device="cpu").save(
        tmp_path / "two"
    )
    (place,) = (tmp_path / "two").glob("query*/tokenizer.json")
    tokens = json.loads(place.read_text())
    words = tokens["model"]["vocab"]
    words["index"], words["query"] = words["query"], words["index"]
    place.write_text(json.dumps(tokens))
    headless = shutil.copytree(sparse_model, tmp_path / "headless")
    weights = load_file(headless / "model.safetensors")
    body = {name: each for name, each in weights.items() if not name.startswith("cls.")}
    save_file(body, headless / "model.safetensors", metadata={"format": "pt"})
    for model, reason in (
        ("two", "queries and documents would have other vocabularies"),
        ("headless", "has no language-model head"),
    ):
        command = ["embed", f"corpus={corpus}", f"model={tmp_path / model}"]
        assert main([*command, f"out={tmp_path}/x"]) == 2
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "x").exists()


def test_vectors_are_queries_of_the_same_index(index: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"id": "q", "vector": {"rank": 1.5, "score": 0.5}}\n')
    command = ["search", f"index={index}", f"queries={tmp_path}/q.jsonl", f"out={tmp_path}/r"]
    assert main([*command, "k=3"]) == 0


def test_it_is_fused_with_an_index_of_texts(
    index: Path, corpus: Path, queries: Path, tmp_path: Path
) -> None:
    assert main(["index", f"corpus={corpus}", f"out={tmp_path}/IDX"]) == 0
    command = ["search", f"index={tmp_path}/IDX,{index}", "fusion=rrf", f"queries={queries}"]
    assert main([*command, "k=5", f"out={tmp_path}/r"]) == 0
    run = read_run(tmp_path / "r").as_dict()
    assert set(run) == {"q0", "q1", "q2"} and len(run["q0"]) == 5
