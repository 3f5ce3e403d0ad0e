"""From a list of texts to a table of hits, a pipeline, a comparison: what a notebook does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import raydist as rd
from raydist.errors import ConfigError

CORPUS = {
    "d1": "A heron waits in the shallows for fish.",
    "d2": "Canal boats carry coal, and sometimes fish, along the canal.",
    "d3": {"title": "Kingfisher", "text": "It dives for fish."},
}
QUERIES = {"q1": "heron", "q2": "boats on canals", "q3": "kingfishers"}
QRELS = {"q1": {"d1": 1}, "q2": {"d2": 2}, "q3": {"d3": 1}}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_six_lines_lead_from_texts_to_a_comparison() -> None:
    index = rd.index(CORPUS, "idx")
    hits = index.search("fish for herons", k=2)
    assert "*heron*" in repr(hits) and hits[0].id == "d1" and len(hits) == 2
    pipe = index.bm25() % 10 >> rd.rerank({"kind": "bm25", "analyzer": "english"}, depth=10)
    run = pipe.search(QUERIES, k=5)
    assert run["q2"][0].id == "d2" and list(run.to_pandas()) == ["query_id", "doc_id", "score"]
    systems = {"bm25": index, "pipe": pipe, "run": run}
    table = rd.compare(systems, QUERIES, QRELS, ["RR", "nDCG@10"], tracking="none")
    assert table["pipe", "RR"] == table["bm25", "nDCG@10"] == 1.0
    assert "p corrected" in repr(table) and table.figure("RR").axes


def test_what_is_written_by_one_session_is_opened_by_the_next() -> None:
    rd.index(CORPUS, "idx")
    rd.open("idx").search(QUERIES, k=2).write("run.txt")
    assert rd.read_run("run.txt")["q1"][0].id == "d1"
    assert rd.open("idx")["d3"].title == "Kingfisher"


def test_the_same_rows_are_already_built_and_others_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rd.index(CORPUS, "idx")
    capsys.readouterr()
    began = time.monotonic()
    rd.index(dict(CORPUS), "idx")
    assert "already built" in capsys.readouterr().err and time.monotonic() - began < 5
    with pytest.raises(rd.ArtifactError, match="corpus"):
        rd.index({"d1": "Another text."}, "idx")
    assert {each.name for each in Path().iterdir()} == {"idx"}


def test_mistakes_are_those_of_the_command_line() -> None:
    with pytest.raises(ConfigError, match="block_sise: unknown key; did you mean block_size"):
        rd.index(CORPUS, "idx", block_sise=3)
    with pytest.raises(ConfigError, match="out: required"):
        rd.index(CORPUS)
    with pytest.raises(rd.ArtifactError, match="nothing: no such folder"):
        rd.open("nothing")
    index = rd.index(CORPUS, "idx")
    with pytest.raises(ConfigError, match=r"scoring\.k1 = -1"):
        index.bm25(k1=-1)
    with pytest.raises(ConfigError, match="queries: required, since 'bm25' is no run"):
        rd.compare({"bm25": index}, qrels=QRELS)
    with pytest.raises(ConfigError, match="names a file"):
        Path("queries.jsonl").write_text("{}")
        index.search("queries.jsonl")


def test_the_package_is_light_and_shows_its_names() -> None:
    code = (
        "import sys, raydist as rd\n"
        "heavy = {'torch', 'ray', 'pandas', 'numpy', 'pyarrow', 'pydantic', 'raydist.api'}\n"
        "assert not heavy & set(sys.modules)\n"
        "assert dir(rd) == sorted(rd.__all__)\n"
        "rd.index, rd.rerank, rd.export, rd.open, rd.Run, rd.compare, rd.serve\n"
        "import raydist.reranking, raydist.exporting\n"
        "assert callable(rd.rerank) and callable(rd.export)\n"
        "assert not {'torch', 'ray', 'pandas'} & set(sys.modules), 'a name loads torch'\n"
        "try:\n"
        "    rd.nonsense\n"
        "except AttributeError as error:\n"
        "    assert 'nonsense' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from raydist import extras
    from raydist.api.command import spoken_errors

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extras, "is_installed", lambda package: package in ("fastapi", "ray"))
    with pytest.raises(rd.ConfigError, match=r"needs torch.*raydist\[train\]"):
        rd.embed({"1": "heron"}, "vec", model="x/y")
    with pytest.raises(rd.ConfigError, match=r"^embedder = x/y needs torch.*raydist\[train\]"):
        rd.serve(embedder={"path": "x/y"})
    with (
        pytest.raises(rd.ConfigError, match=r"Encoder needs torch.*raydist\[train\]"),
        spoken_errors("Encoder"),
    ):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.mark.slow
def test_a_table_of_hits_takes_ten_seconds_with_warm_kernels() -> None:
    code = (
        "import raydist as rd\n"
        "texts = {'1': 'heron fish', '2': 'canal boat'}\n"
        "index = rd.index(texts, 'idx')\n"
        "print(index.search('heron', k=1))\n"
    )
    for name in ("warm-up", "warm"):
        began = time.monotonic()
        out = subprocess.run(
            [sys.executable, "-c", code.replace("'idx'", repr(name))],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        seconds = time.monotonic() - began
    assert "*heron* fish" in out and seconds < 10


@pytest.mark.slow
def test_importing_the_package_takes_sixty_milliseconds() -> None:
    code = (
        "import time; began = time.perf_counter(); import raydist; "
        "print(time.perf_counter() - began)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for _ in range(5)
    ]
    assert min(times) < 0.06


def test_a_search_for_the_best_training_has_a_row_for_each_trial(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_text('{"trial": "a", "value": 0.5}\n{"trial": "b"}\n')
    metrics = rd.Training(str(tmp_path), {"kind": "tuning"}).metrics
    assert metrics["trial"].to_list() == ["a", "b"]


def test_nothing_is_compiled_before_the_keys_of_an_index_are_checked(tmp_path: Path) -> None:
    program = "import raydist as rd; rd.index({'a': 'b'}, 'idx', block=3)"
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ConfigError" in process.stderr and "compiling" not in process.stderr
