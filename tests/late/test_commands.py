"""The verbs with a multi-vector model, against the scores of sentence-transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sentence_transformers import MultiVectorEncoder

import raydist as rd
from raydist.bow.ahead import SEARCH, WEIGHTED
from raydist.build import compile_search, open_retriever, open_searcher
from raydist.cli import main
from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.data.readers import read_documents, read_run
from raydist.late.ahead import MULTIVECTOR_SEARCH
from raydist.models.biencoder import BiEncoder

QUERIES = {"q1": "the model of a query", "q2": "vector", "q3": "answer score"}


@pytest.fixture(scope="module")
def base(small_corpus: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a corpus, queries and an index of 8 bits."""
    folder = tmp_path_factory.mktemp("late")
    BiEncoder.load(
        tiny_bert, kind="multivector", projection=32, query_instruction="q: ", device="cpu"
    ).save(folder / "model")
    (folder / "corpus.jsonl").write_bytes(small_corpus.read_bytes())
    lines = [json.dumps({"id": name, "text": text}) for name, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines))
    assert run(folder, "embed", "out=index", "model=model", "bits=8") == 0
    return folder


def run(folder: Path, verb: str, *words: str) -> int:
    places = ("out", "model", "index", "reranker", "embedder", "run", "ids", "queries")
    spelled = []
    for word in words:
        name, _, value = word.partition("=")
        joined = ",".join(str(folder / each) for each in value.split(","))
        spelled.append(f"{name}={joined}" if name in places else word)
    if verb in ("embed", "rerank", "index"):
        spelled += [f"corpus={folder / 'corpus.jsonl'}"]
    if verb == "embed":
        spelled += ["split_bytes=4000"]
    if verb in ("search", "rerank") and not any(word.startswith("quer") for word in words):
        spelled += [f"queries={folder / 'queries.jsonl'}"]
    return main([verb, *spelled])


def reference(folder: Path) -> dict[str, dict[str, float]]:
    """The scores of all documents by sentence-transformers."""
    model = MultiVectorEncoder(str(folder / "model"), device="cpu")
    table = pa.concat_tables(read_documents(str(folder / "corpus.jsonl")))
    titles, texts = table["title"].to_pylist(), table["text"].to_pylist()
    contents = [f"{a}\n{b}" if a else b for a, b in zip(titles, texts)]
    scores = model.similarity(
        model.encode_query(list(QUERIES.values())), model.encode_document(contents)
    )
    ids = table["doc_id"].to_pylist()
    return {q: dict(zip(ids, row.tolist())) for q, row in zip(QUERIES, scores)}


def rows(path: Path) -> dict[str, dict[str, float]]:
    return {q: dict(zip(ids, s.tolist())) for q, ids, s in read_run(str(path))}


def test_the_search_has_the_scores_of_sentence_transformers(base: Path) -> None:
    assert run(base, "search", "index=index", "k=200", "exact=true", "out=exact.txt") == 0
    found, expected = rows(base / "exact.txt"), reference(base)
    for query, scores in found.items():
        assert scores.keys() == expected[query].keys()
        for name, score in scores.items():
            assert score == pytest.approx(expected[query][name], abs=0.1)
    assert run(base, "search", "index=index", "k=5", "out=few.txt") == 0
    for query, scores in rows(base / "few.txt").items():
        assert list(scores) == list(found[query])[:5]


def test_the_service_and_python_compile_while_the_model_loads(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a second process, before an index is opened: kernels of its kind, no others."""
    begun: list[str] = []

    def record(kernels: Mapping[str, str], processes: int) -> bool:
        assert opened == []
        begun.extend(kernels)
        return False

    def remember(*arguments: Any) -> Any:
        opened.append(arguments[0])
        return open_retriever(*arguments)

    opened: list[str] = []
    monkeypatch.setattr("raydist.bow.ahead.compile_ahead", record)
    monkeypatch.setattr("raydist.build.open_retriever", remember)
    index = str(base / "index")
    config = load(ServeConfig, (), [f"index={index}"])
    for search in (partial(open_searcher, config), partial(rd.open(index).search, ["vector"])):
        search()
        assert (begun, len(opened)) == ([*MULTIVECTOR_SEARCH], 1)
        begun.clear(), opened.clear()
    folder = {"kind": "bow-index"}
    for facts, kernels in (({}, SEARCH), ({"unit": 0.1}, WEIGHTED), ({"kind": "vectors"}, {})):
        compile_search([{**folder, **facts}])
        assert sorted(begun) == sorted(kernels)
        begun.clear()


def test_a_run_is_reranked_to_the_scores_of_sentence_transformers(base: Path) -> None:
    assert run(base, "search", "index=index", "k=9", "out=first.txt") == 0
    assert run(base, "rerank", "run=first.txt", "reranker=model", "out=second.txt") == 0
    expected = reference(base)
    for query, scores in rows(base / "second.txt").items():
        assert len(scores) == 9
        for name, score in scores.items():
            assert score == pytest.approx(expected[query][name], abs=1e-4)


def test_only_listed_documents_are_searched_and_indexes_are_fused(base: Path) -> None:
    (base / "ids.txt").write_text("d3\nd5\nd77\nunknown\n")
    assert run(base, "search", "index=index", "ids=ids.txt", "k=9", "out=some.txt") == 0
    assert all(scores.keys() == {"d3", "d5", "d77"} for scores in rows(base / "some.txt").values())
    assert run(base, "index", "out=bow") == 0
    words = ("index=bow,index", "fusion=rrf", "k=9", "out=fused.txt")
    assert run(base, "search", *words) == 0
    assert set(rows(base / "fused.txt")) == set(QUERIES)


def test_an_index_that_grows_is_searched_as_one(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (base / "corpus.jsonl").read_text().splitlines()
    first, more = tmp_path / "first.jsonl", tmp_path / "more.jsonl"
    first.write_text("\n".join(lines[:60]))
    more.write_text("\n".join([*lines[60:], *lines[:2]]))
    (tmp_path / "ids.txt").write_text("d3\nd77\n")
    index, queries = tmp_path / "index", f"queries={base / 'queries.jsonl'}"
    model = f"model={base / 'model'}"
    assert main(["embed", f"corpus={first}", model, "bits=8", f"out={index}"]) == 0
    append = ["embed", f"corpus={more}", f"out={index}", "--append"]
    assert main([*append, model, "bits=4"]) == 2
    assert "bits" in capsys.readouterr().err
    assert main(append) == 2
    assert "duplicates=last keeps one" in capsys.readouterr().err
    assert main([*append, "duplicates=last"]) == 0
    assert main(["embed", f"delete={tmp_path / 'ids.txt'}", f"out={index}"]) == 0
    search = ["search", f"index={index}", queries, "k=200", "exact=true"]
    assert main([*search, f"out={tmp_path / 'grown.txt'}"]) == 0
    assert main(["verify", str(index)]) == 0
    assert "removes 4 deleted documents" in capsys.readouterr().err
    assert main(["merge", str(index)]) == 0
    assert main([*search, f"out={tmp_path / 'merged.txt'}"]) == 0
    grown, expected = rows(tmp_path / "grown.txt"), reference(base)
    assert grown == rows(tmp_path / "merged.txt")
    for query, scores in grown.items():
        assert scores.keys() == expected[query].keys() - {"d3", "d77"}
        for name, score in scores.items():
            assert score == pytest.approx(expected[query][name], abs=0.1)


def test_verify_finds_it_sound_and_damage_is_named(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(base / "index")]) == 0
    capsys.readouterr()
    path = base / "index" / "segments" / "00000" / "residuals"
    sound = path.read_bytes()
    path.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])
    assert main(["verify", str(base / "index")]) != 0
    assert "residuals" in capsys.readouterr().err
    path.write_bytes(sound)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bits=3",), "bits"),
        (("precision=int8",), "precision=int8: a multi-vector index has bits"),
        (("dimension=8",), "dimension=8"),
        (("ann.kind=hnsw",), "ann.kind=hnsw"),
    ],
)
def test_options_that_do_not_fit_are_named_before_work(
    base: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert run(base, "embed", "out=not", "model=model", *words) == 2
    assert message in capsys.readouterr().err
    assert not (base / "not").exists()


def test_another_models_index_and_bits_of_vectors_are_refused(
    base: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    BiEncoder.load(tiny_bert, kind="multivector", projection=32, seed=7, device="cpu").save(
        base / "other"
    )
    words = ["search", f"index={base / 'index'}", "query=vector", f"model={base / 'other'}"]
    assert main(words) == 2
    assert "is another model" in capsys.readouterr().err
    assert (
        main(
            [
                "embed",
                f"corpus={base / 'corpus.jsonl'}",
                f"model={tiny_bert}",
                "bits=4",
                f"out={base / 'not'}",
            ]
        )
        == 2
    )
    assert "is no multi-vector model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", "index=index", "approximate=true"), "approximate: is for folders of vectors"),
        (("search", "index=index", "rescore_depth=9"), "rescore_depth: is for folders of vectors"),
        (("search", "index=words", "exact=true"), "exact: is for multi-vector indexes"),
        (("serve", "embedder=model", "--dry-run"), "no route returns vectors of tokens"),
        (("train", "model=model", "model.kind=sparse", "data=no"), "holds a multi-vector model"),
    ],
)
def test_what_does_not_go_with_multi_vector_models_is_named(
    base: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    if "index=words" in words:
        assert run(base, "index", "out=words") == 0
    out = () if words[0] == "serve" else ("out=not",)
    assert run(base, *words, *out) == 2
    assert message in capsys.readouterr().err
    assert not (base / "not").exists()


def test_a_service_misses_the_model_of_an_index_before_it_starts(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(base / "model", tmp_path / "model")
    out = f"out={tmp_path}/index"
    corpus = f"corpus={base}/corpus.jsonl"
    assert main(["embed", corpus, f"model={tmp_path}/model", out]) == 0
    assert main(["serve", f"index={tmp_path}/index", "--dry-run"]) == 0
    shutil.move(tmp_path / "model", tmp_path / "moved")
    assert main(["serve", f"index={tmp_path}/index", "--dry-run"]) == 2
    assert f"index: model {tmp_path}/model: no such folder" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_workers_do_not_change_a_byte(base: Path) -> None:
    assert run(base, "embed", "out=shared", "model=model", "bits=8", "workers=2") == 0
    for path in sorted((base / "index").rglob("*")):
        if path.is_file() and path.name not in ("manifest.json", "config.json"):
            assert (
                path.read_bytes()
                == (base / "shared" / path.relative_to(base / "index")).read_bytes()
            )
