"""`raydist benchmark`: what a cell is made of, what is run again, what the table says."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ir_measures
import pyarrow.parquet as pq
import pytest
import yaml
from lxml import html
from scipy.stats import ttest_rel

from raydist.cli import main
from tests.killed import run_until

ROOT = Path(__file__).resolve().parents[2]
NOUNS = ["heron", "canal", "boat", "fish", "river", "bridge", "lock", "otter", "reed", "willow"]
SYSTEMS: dict[str, Any] = {
    "bm25": {"search": {"k": 5}},
    "flat": {"search": {"k": 5, "scoring": {"k1": 0.0, "b": 0.0}}},
    "plain": {"index": {"analyzer": {"stemmer": "none"}}, "search": {"k": 5}},
    "again": {"search": {"k": 5}, "rerank": {"reranker": "bm25", "depth": 3}},
}
MEASURES = ["nDCG@5", "RR"]
Run = Callable[..., tuple[int, str, str]]


def write_collection(folder: Path, shift: int, judged: int) -> None:
    """Writes ten documents and ten queries, of which `judged` have judgements."""
    folder.mkdir()
    pairs = [(a, NOUNS[(i * 3 + shift) % 10]) for i, a in enumerate(NOUNS)]
    rows = [{"_id": f"d{i}", "text": f"{a} {a}s {b} water"} for i, (a, b) in enumerate(pairs)]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rows = [{"_id": f"q{i}", "text": f"{b} {a}s"} for i, (a, b) in enumerate(pairs)]
    (folder / "queries.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines = [f"q{i} 0 d{(i * 7 + shift) % 10} {1 + i % 2}\n" for i in range(judged)]
    lines += [f"q{i} 0 d{i} 1\n" for i in range(0, judged, 2)]
    (folder / "qrels.txt").write_text("".join(lines))


def write_suite(folder: Path, **changes: Any) -> Path:
    suite = {
        **{"collections": {"one": "one", "two": "two"}, "systems": SYSTEMS, "measures": MEASURES},
        **{"baseline": "bm25", "resamples": 200, "tracking": "none", **changes},
    }
    file = folder / "suite.yaml"
    file.write_text(yaml.safe_dump(suite, sort_keys=False))
    return file


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Run:
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path / "one", 1, 8)
    write_collection(tmp_path / "two", 4, 6)
    write_suite(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["benchmark", "suite.yaml", "out=bench", *words])
        return code, *capsys.readouterr()

    return run


def ran(err: str) -> list[str]:
    """Returns the cells that were run or measured."""
    lines = [line for line in err.splitlines() if line.startswith("cell ")]
    return [line.split(": ")[1] for line in lines if not line.endswith(": done before")]


def results(folder: str = "bench") -> dict[str, bytes]:
    names = ("results.json", "report.md", "report.csv", "report.html")
    return {name: Path(folder, name).read_bytes() for name in names}


def rows(folder: str = "bench") -> dict[tuple[str, str, str], dict[str, Any]]:
    collections = json.loads(Path(folder, "results.json").read_text())["collections"]
    return {
        (name, row["run"], row["measure"]): row
        for name, report in collections.items()
        for row in report["rows"]
    }


def test_the_table_has_the_means_and_holms_tests_of_the_rankings(run: Run) -> None:
    code, out, err = run()
    assert code == 0 and len(ran(err)) == 8
    assert out.splitlines()[0].split()[:5] == ["collection", "measure", "system", "mean", "low"]
    table = rows()
    for collection, queries in (("one", 8), ("two", 6)):
        qrels = list(ir_measures.read_trec_qrels(f"{collection}/qrels.txt"))
        values: dict[str, list[float]] = {}
        for system in SYSTEMS:
            ranking = pq.read_table(f"bench/cells/{collection}/{system}/run.parquet").to_pylist()
            assert {row["query_id"] for row in ranking} == {f"q{i}" for i in range(queries)}
            scored = [ir_measures.ScoredDoc(*row.values()) for row in ranking]
            metrics = ir_measures.iter_calc([ir_measures.RR], qrels, scored)
            by_query = {each.query_id: each.value for each in metrics}
            values[system] = [by_query[f"q{i}"] for i in range(queries)]
            mean = sum(values[system]) / queries
            assert table[collection, system, "RR"]["mean"] == pytest.approx(mean)
        others = [system for system in SYSTEMS if values[system] != values["bm25"]]
        p = {each: ttest_rel(values[each], values["bm25"]).pvalue for each in others}
        p |= {each: 1.0 for each in SYSTEMS if each not in p and each != "bm25"}
        highest = 0.0
        for factor, each in zip((3, 2, 1), sorted(p, key=p.__getitem__)):
            highest = max(highest, min(1.0, factor * p[each]))
            assert table[collection, each, "RR"]["p"] == pytest.approx(p[each])
            assert table[collection, each, "RR"]["p_corrected"] == pytest.approx(highest)
    average = json.loads(Path("bench/results.json").read_text())["average"]
    both = [table[name, "flat", "RR"]["mean"] for name in ("one", "two")]
    mean = next(row["mean"] for row in average if (row["run"], row["measure"]) == ("flat", "RR"))
    assert mean == pytest.approx(sum(both) / 2)
    with open("bench/report.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8 * 2 + 4 * 2
    line = next(each for each in lines if (each["collection"], each["system"]) == ("two", "flat"))
    assert float(line["mean"]) == table["two", "flat", "nDCG@5"]["mean"]
    assert (line["measure"], line["queries"]) == ("nDCG@5", "6")


def test_a_killed_benchmark_continues_and_ends_as_an_undisturbed_one(run: Run) -> None:
    assert run()[0] == 0
    undisturbed = results()
    Path("bench").rename("whole")
    run_until(r"cells/one/plain/values\.parquet$", "benchmark", "suite.yaml", "out=bench")
    first = Path("bench/cells/one/bm25/run.parquet").stat().st_mtime_ns
    run_until(r"bench/report\.html$", "benchmark", "suite.yaml", "out=bench")
    code, _, err = run()
    assert code == 0 and ran(err) == []
    assert Path("bench/cells/one/bm25/run.parquet").stat().st_mtime_ns == first
    assert results() == undisturbed


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("report.html", []),
        ("results.json", []),
        ("cells/one/bm25/values.parquet", ["bm25 on one"]),
        ("cells/one/bm25/run.parquet", ["bm25 on one"]),
    ],
)
def test_a_file_that_was_deleted_is_written_again(run: Run, lost: str, again: list[str]) -> None:
    suite = ["systems={bm25: {}, ql: {search: {scoring: ql}}}", "collections={one: one}"]
    assert run(*suite)[0] == 0
    whole = results()
    Path("bench", lost).unlink()
    code, _, err = run(*suite)
    assert (code, ran(err)) == (0, again)
    assert Path("bench", lost).is_file() and results() == whole
    assert run(*suite)[0] == 0 and results() == whole


def test_damaged_values_are_named(run: Run) -> None:
    suite = ["systems={bm25: {}}", "collections={one: one}"]
    assert run(*suite)[0] == 0
    values = Path("bench/cells/one/bm25/values.parquet")
    values.write_bytes(values.read_bytes()[:20])
    code, _, err = run(*suite)
    assert code == 2 and f"error: {values}: damaged" in err and "delete it" in err


def test_a_damaged_ranking_is_named_and_made_again_once_it_is_deleted(run: Run) -> None:
    suite = ["systems={bm25: {}}", "collections={one: one}"]
    assert run(*suite)[0] == 0
    whole = results()
    ranking = Path("bench/cells/one/bm25/run.parquet")
    for content in (ranking.read_bytes()[:40], b"", b"PAR1"):
        ranking.write_bytes(content)
        code, _, err = run(*suite, "measures=P@1")
        remedy = f"delete {ranking} and run the same command again"
        assert code == 2 and f"{ranking}" in err and remedy in err
    ranking.unlink()
    assert run(*suite)[0] == 0 and results() == whole


def test_opened_collections_are_measured_as_their_folders(run: Run) -> None:
    import raydist as rd

    systems = {"bm25": {"search": {"k": 5}}}
    opened = rd.benchmark(
        {"one": rd.collection("one")}, systems, "opened", measures=MEASURES, tracking="none"
    )
    folders = rd.benchmark({"one": "one"}, systems, "f", measures=MEASURES, tracking="none")
    for measure in MEASURES:
        assert opened["one", "bm25", measure] == folders["one", "bm25", measure] > 0


def test_a_change_runs_its_own_cells_only(run: Run, tmp_path: Path) -> None:
    assert run()[0] == 0
    before = results()
    code, out, err = run()
    assert code == 0 and "already built" in err and ran(err) == [] and "flat" in out
    code, _, err = run("systems.flat.search.k=4")
    assert code == 0 and ran(err) == ["flat on one", "flat on two"]
    run_of = Path("bench/cells/one/bm25/run.parquet")
    written = run_of.stat().st_mtime_ns
    code, _, err = run("measures=P@1")
    assert code == 0 and len(ran(err)) == 8 and "search:" in err and "P@1" in err
    assert "bm25/run.parquet" not in err, "rankings stay"
    assert run_of.stat().st_mtime_ns == written
    write_collection(tmp_path / "three", 2, 5)
    code, _, err = run("collections.three=three")
    assert code == 0 and ran(err)[-4:] == [f"{system} on three" for system in SYSTEMS]
    for line in ("q9 0 d1 1\n", ""):
        qrels = (tmp_path / "two/qrels.txt").read_text().replace("q9 0 d1 1\n", "")
        (tmp_path / "two/qrels.txt").write_text(qrels + line)
        code, _, err = run()
        assert code == 0 and ran(err) == [f"{system} on two" for system in SYSTEMS]
    assert results() == before


def test_systems_share_an_index_and_a_changed_corpus_is_indexed_anew(run: Run) -> None:
    assert run()[0] == 0
    assert len(list(Path("bench/builds/one").iterdir())) == 2
    corpus = Path("one/corpus.jsonl")
    corpus.write_text(corpus.read_text().replace("water", "wind"))
    code, _, err = run()
    assert code == 0 and ran(err) == [f"{system} on one" for system in SYSTEMS]
    assert len(list(Path("bench/builds/one").iterdir())) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["baseline=bm26"], "baseline = 'bm26': no such system"),
        (["collections.three=three"], "collections.three: three: no such folder"),
        (["collections.one.split=dev"], "collections.one: one: no qrels/dev.tsv"),
        (["collections.c.queries=q", "collections.c.qrels=j"], "collections.c.corpus: required by"),
        (["collections.one.qrels=two/corpus.jsonl"], "two/corpus.jsonl: no field query_id"),
        (["systems.dense.embed.model=./none"], "systems.dense: model ./none: no such folder"),
        (["systems.x.serch.k=3"], "systems.x.serch: unknown key; did you mean systems.x.search?"),
        (["systems.x.search.fusion=rrf"], "search.fusion: needs two rankings"),
        (["systems.x.run=runs/{collection}.txt"], "systems.x: runs/one.txt: no such file"),
        (["systems.x.run=r", "systems.x.search.k=3"], "a run has no search"),
        (["collections.average=one"], "collections.average"),
        (["systems.a/b.search.k=3"], "systems.a/b: expected letters and digits"),
        (["measures=nDGC"], "nDGC"),
        (["out=s3://bucket/bench"], "give a path"),
    ],
)
def test_mistakes_are_reported_before_the_first_cell(
    run: Run, words: list[str], message: str
) -> None:
    code, out, err = run(*words)
    assert code == 2 and message in err and "Traceback" not in err
    assert not out and ran(err) == [] and not Path("bench").exists()


def test_a_collection_without_a_judged_query_is_refused(run: Run) -> None:
    Path("one/qrels.txt").write_text("x1 0 d1 1\n")
    code, _, err = run()
    assert code == 2 and "collections.one: queries: none of 10 queries is judged" in err
    assert "'q0'" in err and "'x1'" in err and not Path("bench").exists()
    Path("one/qrels.txt").write_text("x1 0 d1 1\nq1 0 d1 1\n")
    code, _, err = run()
    assert code == 0 and "1 of 2 judged queries without a text, which count 0" in err
    assert rows()["one", "bm25", "RR"]["mean"] <= 0.5


def test_a_dry_run_shows_what_there_is_to_do(run: Run) -> None:
    code, _, err = run("--dry-run")
    assert code == 0 and err.count(" run ") >= 8 and not Path("bench").exists()
    assert run()[0] == 0
    err = run("--dry-run", "systems.flat.search.k=4", "measures=RR")[2]
    states = [line.split("│")[1:4] for line in err.splitlines() if line.count("│") == 4]
    assert {system.strip(): state.strip() for _, system, state in states} == {
        **dict.fromkeys(SYSTEMS, "measure"),
        "flat": "run",
    }


def test_a_run_of_another_program_is_a_system(run: Run, tmp_path: Path) -> None:
    assert run()[0] == 0
    for name in ("one", "two"):
        source = f"bench/cells/{name}/flat/run.parquet"
        assert main(["convert", f"in={source}", f"out=other-{name}.txt"]) == 0
    code, _, err = run("systems.other.run=other-{collection}.txt")
    assert code == 0 and ran(err) == ["other on one", "other on two"]
    assert main(["benchmark", "bench/config.json", "out=bench"]) == 0, "it repeats the command"
    table = rows()
    assert table["two", "other", "RR"]["mean"] == table["two", "flat", "RR"]["mean"]
    text = Path("other-two.txt").read_text()
    Path("other-two.txt").write_text("".join(text.splitlines(keepends=True)[:-1]))
    assert ran(run("systems.other.run=other-{collection}.txt")[2]) == ["other on two"]


def test_a_run_of_other_queries_is_refused(run: Run) -> None:
    Path("other.txt").write_text("x1 Q0 d1 1 2.0 other\n")
    words = ["systems={other: {run: other.txt}}", "collections={one: one}"]
    code, _, err = run(*words)
    assert code == 2 and "other.txt: none of its 1 query is judged" in err
    Path("other.txt").write_text("q1 Q0 d1 1 2.0 other\n")
    code, _, err = run(*words)
    assert code == 0 and "other.txt: 7 of 8 judged queries without results, which count 0" in err


def test_a_query_that_is_a_document_is_left_out_of_its_ranking(run: Run) -> None:
    queries = Path("one/queries.jsonl")
    queries.write_text(queries.read_text().replace('"q', '"d'))
    qrels = Path("one/qrels.txt")
    qrels.write_text(qrels.read_text().replace("q", "d"))

    def own(system: str) -> int:
        ranking = pq.read_table(f"bench/cells/one/{system}/run.parquet").to_pylist()
        return sum(row["query_id"] == row["doc_id"] for row in ranking)

    assert run()[0] == 0 and own("flat") > 0
    code, _, err = run("collections.one.exclude_own=true")
    assert code == 0 and ran(err) == [f"{system} on one" for system in SYSTEMS]
    assert own("flat") == own("again") == 0


def test_the_page_loads_nothing_and_has_a_bar_for_each_mean(run: Run) -> None:
    assert run("measures=[RR,P@1]")[0] == 0
    text = Path("bench/report.html").read_text()
    page = html.fromstring(text)
    assert "prefers-color-scheme: dark" in text
    assert not page.xpath("//script|//link|//img") and "http" not in text.replace("http-equiv", "")
    figures = page.xpath("//figure")
    assert len(figures) == 3 * 2  # two collections and their average
    assert all(len(figure.xpath(".//rect")) == 4 for figure in figures)
    assert len(page.xpath("//path[@class='whisker']")) == 2 * 2 * 4
    row = page.xpath("//tr[td='one' and td='RR' and td='flat']/td/text()")
    assert row[3] == f"{rows()['one', 'flat', 'RR']['mean']:.4f}"


def test_a_run_in_mlflow_has_a_child_for_each_cell(run: Run, database: str) -> None:
    from mlflow import MlflowClient

    assert run(f"tracking={database}")[0] == 0
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("raydist")
    runs = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("benchmark bench")
    assert set(runs) == {f"{system} on {name}" for system in SYSTEMS for name in ("one", "two")}
    child = runs["flat on two"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params["collection"] == "two"
    assert child.data.params["search.scoring.k1"] == "0.0"
    assert child.data.metrics["RR"] == pytest.approx(rows()["two", "flat", "RR"]["mean"])
    assert {child.info.status, parent.info.status} == {"FINISHED"}
    assert "| two | RR | flat |" in parent.data.tags["mlflow.note.content"]
    files = {each.path for each in client.list_artifacts(parent.info.run_id)}
    assert {"report.md", "report.csv", "report.html"} <= files


def test_dense_and_hybrid_systems_are_measured(run: Run, tiny_bert: Path, tmp_path: Path) -> None:
    systems = {
        "dense": {"embed": {"model": str(tiny_bert)}},
        "hybrid": {"index": {}, "embed": {"model": str(tiny_bert)}, "search": {"fusion": "rrf"}},
    }
    write_suite(tmp_path, systems=systems, baseline="dense", collections={"one": "one"})
    code, _, err = run()
    assert code == 0 and ran(err) == ["dense on one", "hybrid on one"]
    builds = sorted(path.name.partition("-")[0] for path in Path("bench/builds/one").iterdir())
    assert builds == ["embed", "index"]


def test_the_suite_of_the_repository_runs_without_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["benchmark", str(ROOT / "jobs/benchmark/local.yaml"), "out=bench", "tracking=none"]
    assert main(words) == 0
    assert "bm25-unstemmed" in capsys.readouterr().out
