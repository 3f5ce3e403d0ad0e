"""What an index can hold, together: positions, forward index, columns, fields, and their life."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from raydist.bow.build.delete import delete_from_index
from raydist.bow.fields import changing
from raydist.bow.index import BowIndex
from raydist.bow.lookup import term_counts
from raydist.bow.spec import Bm25, BowSearchSpec, Sdm
from raydist.build import open_retriever
from raydist.cli import main
from raydist.config.load import load
from raydist.config.serve import ServeConfig
from raydist.data.readers import read_run
from raydist.data.spec import RunSource
from raydist.dense.fusion import fuse
from raydist.dense.spec import Rrf
from raydist.records import Query, Run
from raydist.serving.replicas import Index
from tests.bow.documents import contents
from tests.killed import run_until
from tests.serving.local import client

ALL = ["positions=true", "forward=true", "corpus.columns=year,source"]
WORDS = ["heron", "fish", "canal", "boat", "lock", "reed", "water", "bridge", "gate", "barge"]
TEXTS = ["heron fish", "canal boat lock", "reed", "gate gate barge water"]


def rows(first: int, last: int) -> list[dict[str, object]]:
    return [
        {
            "id": f"d{i}",
            "title": " ".join(WORDS[i * j % 10] for j in range(1, i % 4)),
            "text": " ".join(WORDS[(i * j + j * j) % (3 + i % 8)] for j in range(5 + i % 30)),
            "year": 1990 + i % 40,
            "source": "xyz"[i % 3],
        }
        for i in range(first, last)
    ]


def corpus(path: Path, documents: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in documents), "utf-8")
    return f"corpus={path}"


def segments(folder: Path) -> dict[str, bytes]:
    """The files of the only segment, by name."""
    return {Path(name).name: data for name, data in contents(folder / "segments").items()}


def run_of(folder: Path, **search: object) -> Run:
    retriever = open_retriever(str(folder), BowSearchSpec(**search))  # type: ignore[arg-type]
    return retriever.search([Query(text, text) for text in TEXTS], 30)


def test_all_parts_live_through_appends_deletions_and_merges(tmp_path: Path) -> None:
    changed, new = tmp_path / "changed", tmp_path / "new"
    build = ["index", *ALL, f"out={changed}"]
    assert main([*build, corpus(tmp_path / "a.jsonl", rows(0, 120)), "split_bytes=4KiB"]) == 0
    assert main([*build, corpus(tmp_path / "b.jsonl", rows(120, 150)), "--append"]) == 0
    (tmp_path / "ids").write_text("".join(f"d{i}\n" for i in range(0, 150, 7)))
    assert main(["index", f"delete={tmp_path}/ids", f"out={changed}"]) == 0
    left = [row for i, row in enumerate(rows(0, 150)) if i % 7]
    assert main(["index", *ALL, f"out={new}", corpus(tmp_path / "left.jsonl", left)]) == 0
    searches: list[dict[str, object]] = [
        {},
        {"scoring": Bm25(sdm=Sdm())},
        {"syntax": "lucene"},
        {"filter": "year >= 2010 and source == 'x'", "sort": "-year"},
    ]
    expected = [run_of(new, **search).table for search in searches]
    ids = [str(row["id"]) for row in left]
    for step in (["verify", str(changed)], ["merge", str(changed)], ["verify", str(changed)]):
        assert [run_of(changed, **search).table for search in searches] == expected
        old, fresh = BowIndex.open(changed), BowIndex.open(new)
        assert term_counts(old, old.positions(ids)) == term_counts(fresh, fresh.positions(ids))
        assert main(step) == 0
    assert segments(changed) == segments(new)


@pytest.mark.ray
@pytest.mark.parametrize("fields", [[], ["fields=title,text,source"]], ids=["plain", "fields"])
def test_workers_write_and_search_all_parts_as_one_process_does(
    ray_cluster: object, tmp_path: Path, fields: list[str]
) -> None:
    source = corpus(tmp_path / "c.jsonl", rows(0, 150))
    for workers in (0, 2):
        words = ["index", source, *ALL, *fields, "split_bytes=4KiB", f"workers={workers}"]
        assert main([*words, f"out={tmp_path}/{workers}"]) == 0
    for part in ("title", "text", "source") if fields else ("",):
        for kind in ("segments", "store"):
            found = [contents(tmp_path / str(workers) / part / kind) for workers in (0, 2)]
            assert found[0] == found[1] and (found[0] or kind == "store")
    queries = tmp_path / "q.tsv"
    queries.write_text("".join(f"q{i}\t{text}\n" for i, text in enumerate(TEXTS * 200)))
    scorings = ["scoring.kind=bm25f"] if fields else ["scoring.sdm=true"]
    for scoring in ([], scorings):
        for workers in (0, 2):
            words = [
                f"queries={queries}",
                *scoring,
                "k=7",
                f"workers={workers}",
                "filter=year>1995",
            ]
            out = f"out={tmp_path}/{workers}.txt"
            assert main(["search", f"index={tmp_path}/{workers}", *words, out]) == 0
        assert (tmp_path / "0.txt").read_bytes() == (tmp_path / "2.txt").read_bytes()


def test_a_killed_build_with_all_parts_ends_in_the_same_bytes(tmp_path: Path) -> None:
    words = ["index", corpus(tmp_path / "c.jsonl", rows(0, 150)), *ALL, "split_bytes=4KiB"]
    assert main([*words, f"out={tmp_path}/whole"]) == 0
    killed = tmp_path / "killed"
    run_until(r"splits/0*3\.done$", *words, f"out={killed}")
    done = list(killed.glob(".work/splits/*.done"))
    assert len(done) == 3
    assert main([*words, f"out={killed}"]) == 0
    for kind in ("segments", "store"):
        assert contents(killed / kind) == contents(tmp_path / "whole" / kind)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of fields (FDX), and an index of all documents and one of half (IDX, HALF)."""
    folder = tmp_path_factory.mktemp("built")
    source, half = corpus(folder / "c.jsonl", rows(0, 90)), corpus(folder / "h.jsonl", rows(0, 45))
    assert main(["index", source, *ALL, "fields=title,text", f"out={folder}/FDX"]) == 0
    assert main(["index", source, *ALL, f"out={folder}/IDX"]) == 0
    assert main(["index", half, *ALL[2:], f"out={folder}/HALF"]) == 0
    return folder


def test_a_filter_holds_for_every_index_that_is_fused(built: Path, tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("".join(f"{text}\t{text}\n" for text in TEXTS))
    words = ["search", f"queries={tmp_path}/q.tsv", "fusion=rrf", "depth=500", "k=500"]
    names = ",".join(f"{built}/{name}" for name in ("IDX", "HALF", "FDX"))
    out = tmp_path / "run.parquet"
    assert main([*words, f"index={names}", "filter=year < 2000", f"out={out}"]) == 0
    queries = [Query(text, text) for text in TEXTS]
    runs = [
        open_retriever(f"{built}/{name}", BowSearchSpec(filter="year < 2000")).search(queries, 500)
        for name in ("IDX", "HALF", "FDX")
    ]
    expected = fuse(runs, 500, Rrf())
    assert read_run(RunSource(path=str(out))).table.equals(expected.table) and len(expected) > 20
    years = {str(row["id"]): row["year"] for row in rows(0, 90)}
    assert all(years[each] < 2000 for each in expected.table["doc_id"].to_pylist())  # type: ignore[operator]


def test_several_indexes_take_no_order_by_a_column(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", f"index={built}/IDX,{built}/HALF", "query=heron", "fusion=rrf"]
    assert main([*words, "sort=year"]) == 2
    assert "sort: orders the documents of one index" in capsys.readouterr().err


def test_a_service_searches_fields_with_weights_filters_and_bm25f(built: Path) -> None:
    for scoring in (["scoring.kind=bm25f", "scoring.field_b.title=0.1"], []):
        words = [f"index={built}/FDX", "fields.title=3", "fields.text=1", *scoring]
        config = load(ServeConfig, (), words)
        search = BowSearchSpec(scoring=config.scoring, fields={"title": 3.0, "text": 1.0})
        serving = client(searcher=Index(config).searcher)
        for filter in (None, "year > 2015"):
            request = {"query": "heron fish", "k": 10, "filter": filter, "rerank": False}
            answer = serving.post("/v1/search", json=request)
            assert answer.status_code == 200, answer.text
            found = [(row["id"], row["score"]) for row in answer.json()["results"]]
            retriever = open_retriever(f"{built}/FDX", search)
            retriever = retriever.where(filter) if filter else retriever  # type: ignore[attr-defined]
            run = retriever.search([Query("q", "heron fish")], 10)
            ids, scores = (run.table[name].to_pylist() for name in ("doc_id", "score"))
            assert found == list(zip(ids, scores)) and found


def test_fields_are_exported_one_by_one(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = built / "title.ciff"
    assert main(["convert", f"in={built}/FDX", f"out={out}"]) == 2
    assert f"{built}/FDX/title" in capsys.readouterr().err
    assert main(["convert", f"in={built}/FDX/title", f"out={out}"]) == 0
    assert main(["convert", f"in={out}", f"out={built}/back"]) == 0
    assert run_of(built / "back").table.equals(run_of(built / "FDX" / "title").table)


def test_inspect_says_what_an_index_holds(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", f"{built}/FDX/title"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for row in ("field title", "columns year (int64), source (string)", "positions "):
        assert row in shown, shown
    assert "positions none" not in shown and "forward index none" not in shown
    assert main(["inspect", f"{built}/FDX"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "documents 90" in shown and "title 44 " in shown and "text 90 " in shown
    assert main(["inspect", f"{built}/HALF"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "positions none" in shown and "forward index none" in shown and "field" not in shown


def test_who_opens_fields_that_are_being_changed_gets_a_whole_generation(
    built: Path, tmp_path: Path
) -> None:
    out = tmp_path / "FDX"
    words = [f"corpus={built}/c.jsonl", "corpus.columns=year", "fields=title,text", f"out={out}"]
    assert main(["index", *words]) == 0
    begun = threading.Event()

    def change() -> None:
        with changing(out) as folders:
            for folder in folders:
                delete_from_index(folder, ["d8"])
                begun.set()
                time.sleep(0.4)

    thread = threading.Thread(target=change)
    thread.start()
    begun.wait(20)
    retriever = open_retriever(str(out))
    thread.join()
    assert len(retriever.doc_ids) == 89  # type: ignore[attr-defined]
