"""`raydist reproduce`: published figures come out to the fourth decimal."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import ir_measures
import pytest
import yaml

from raydist.cli import main
from raydist.commands.reproduce import find, measure
from raydist.config.reproduce import PAGES, ReproduceConfig, read_pages

ROOT = Path(__file__).resolve().parents[2]
PAGE_NAMES = sorted(file.stem for file in PAGES.glob("*.yaml"))
RECORD = ROOT / "benchmarks/results/reproductions.json"


@pytest.mark.collections
@pytest.mark.parametrize("name", PAGE_NAMES)
def test_the_figures_of_a_page_come_out(name: str, collections: Path, tmp_path: Path) -> None:
    page = read_pages()[name]
    folder = find(page, ReproduceConfig(name=name, data=str(collections)))
    figures = measure(page, folder)
    count = sum(len(each) for systems in page.expected.values() for each in systems.values())
    assert len(figures) == count >= 2
    assert [each for each in figures if not each.agrees] == []
    measured = [[*each.cells()[:3], round(each.measured, 4)] for each in figures]
    assert measured == json.loads(RECORD.read_text())["figures"][name]


@pytest.mark.collections
@pytest.mark.parametrize("name", ["cranfield", "vaswani", "nfcorpus", "biomappings-mesh"])
def test_recorded_figures_are_those_of_the_recorded_rankings(
    name: str, collections: Path, oracle: Path
) -> None:
    qrels = list(ir_measures.read_trec_qrels(str(collections / name / "qrels.txt")))
    for system, expected in read_pages()[name].expected[name].items():
        model = f"bm25.{system}" if system in ("accurate", "queryside") else system
        place = oracle / f"anserini/{name}.{model}.run.gz"
        place = place if place.is_file() else oracle / f"{name}.lucene.run.gz"
        with gzip.open(place, "rt") as lines:
            rows = [line.split() for line in lines]
        run = [ir_measures.ScoredDoc(row[0], row[2], float(row[4])) for row in rows]
        measures = [ir_measures.parse_measure(each) for each in expected]
        values = ir_measures.pytrec_eval.calc_aggregate(measures, qrels, run)
        assert {str(each): round(values[each], 4) for each in measures} == expected


@pytest.mark.collections
def test_the_line_works_as_it_stands(
    collections: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A collection that lies beside the checkout is found from there, and by a variable."""
    monkeypatch.chdir(ROOT)
    assert main(["reproduce", "cacm"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[1:] for line in out.splitlines()[1:]] == [
        ["bm25", "AP", "0.3123", "0.3123", "yes"],
        ["qld", "AP", "0.3265", "0.3265", "yes"],
        ["bm25-rm3", "AP", "0.3648", "0.3648", "yes"],
        ["qld-rm3", "AP", "0.3629", "0.3629", "yes"],
        ["bm25-axiom", "AP", "0.3077", "0.3077", "yes"],
        ["qld-axiom", "AP", "0.2907", "0.2907", "yes"],
        ["bm25", "P@30", "0.1942", "0.1942", "yes"],
        ["qld", "P@30", "0.1942", "0.1942", "yes"],
        ["bm25-rm3", "P@30", "0.2224", "0.2224", "yes"],
        ["qld-rm3", "P@30", "0.2250", "0.2250", "yes"],
    ]
    assert "10 of 10 figures agree" in err
    monkeypatch.setenv("RAYDIST_COLLECTIONS", str(collections))
    assert main(["reproduce", "cacm", "--dry-run"]) == 0
    assert f"in {collections}" in capsys.readouterr().err


@pytest.mark.collections
def test_another_figure_and_another_file_are_told(
    collections: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(collections / "cacm", tmp_path / "cacm", copy_function=shutil.copyfile)
    qrels = tmp_path / "cacm/qrels.anserini-unpadded.txt"
    qrels.chmod(0o644)
    qrels.write_text("".join(qrels.read_text().splitlines(keepends=True)[:-40]))
    assert main(["reproduce", "cacm", f"data={tmp_path}", "format=json"]) == 1
    out, err = capsys.readouterr()
    assert not all(figure["agrees"] for figure in json.loads(out)["figures"])
    assert "qrels.anserini-unpadded.txt: is not the file that the figures are of" in err


def test_pages_are_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reproduce", f"data={tmp_path}", "format=json"]) == 0
    listed: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed] == PAGE_NAMES
    assert {each["present"] for each in listed} == {"no"}


def test_what_is_missing_is_told_with_where_it_comes_from(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["reproduce", "cacm", f"data={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert f"its collection is not in {tmp_path}" in err and "RAYDIST_COLLECTIONS" in err
    assert "https://github.com/castorini/anserini" in err and "SHA-256 292a88e8" in err
    assert main(["reproduce", "cacn"]) == 2
    assert "did you mean cacm?" in capsys.readouterr().err


def test_every_page_names_its_files_by_their_content() -> None:
    for name in PAGE_NAMES:
        page = read_pages()[name]
        assert all(len(digest) == 64 for digest in page.files.values()), name
        assert "https://" in page.obtain, name
        text = yaml.safe_dump(page.suite)
        assert all("{data}/" in line for line in text.splitlines() if ".jsonl" in line), name
