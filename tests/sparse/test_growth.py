"""An index of a sparse model grows and shrinks: searches are those of a new build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydist.bow.index import BowIndex
from raydist.build import open_retriever, open_sharded
from raydist.cli import main
from raydist.records import Query
from tests.bow.shards_here import Here

TEXTS = {"q0": "retrieval of a document", "q1": "rank", "q2": "a vector index"}


def embed(out: Path, *words: str) -> None:
    assert main(["embed", f"out={out}", *words]) == 0


def ranked(index: Path, tmp_path: Path, *words: str) -> str:
    (tmp_path / "q.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in TEXTS.items()))
    command = ["search", f"index={index}", f"queries={tmp_path}/q.tsv", "k=20", *words]
    assert main([*command, f"out={tmp_path}/r.txt"]) == 0
    return (tmp_path / "r.txt").read_text()


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture(scope="module")
def rows(corpus: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in corpus.read_text().splitlines()]


def test_appends_updates_deletions_and_merges_give_the_rankings_of_a_new_build(
    sparse_model: Path,
    rows: list[dict[str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changed = [{**row, "text": "score of a query " + row["text"]} for row in rows[10:15]]
    first = written(tmp_path / "a.jsonl", rows[:30])
    more = written(tmp_path / "b.jsonl", [*rows[30:], *changed])
    (tmp_path / "gone.txt").write_text("d3\nd40\nd12\n")
    grown = tmp_path / "grown"
    embed(grown, f"corpus={first}", f"model={sparse_model}")
    append = [f"corpus={more}", "duplicates=last", "--append"]
    embed(grown, *append)
    embed(grown, *append)
    assert "were already appended" in capsys.readouterr().err
    embed(grown, f"delete={tmp_path}/gone.txt")
    left = [*rows[:10], *rows[15:], *changed]
    left = [row for row in left if row["id"] not in ("d3", "d40", "d12")]
    whole = tmp_path / "whole"
    embed(whole, f"corpus={written(tmp_path / 'c.jsonl', left)}", f"model={sparse_model}")
    expected = ranked(whole, tmp_path)
    index = BowIndex.open(grown)
    assert len(index.segments) == 2 and len(index) == len(left) < index.end
    assert ranked(grown, tmp_path) == expected
    assert main(["verify", str(grown)]) == 0
    assert main(["merge", str(grown)]) == 0
    index = BowIndex.open(grown)
    assert len(index.segments) == 1 and index.end == len(left)
    assert ranked(grown, tmp_path) == expected
    manifests = [json.loads((each / "manifest.json").read_text()) for each in (grown, whole)]
    assert len({(each["documents"], each["postings"]) for each in manifests}) == 1


def test_purged_documents_leave_no_postings(
    sparse_model: Path, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "SIDX"
    embed(out, f"corpus={written(tmp_path / 'a.jsonl', rows[:20])}", f"model={sparse_model}")
    (tmp_path / "gone.txt").write_text("d3\n")
    embed(out, f"delete={tmp_path}/gone.txt", "purge=true")
    index = BowIndex.open(out)
    assert index.end == len(index) == 19


def test_ids_that_occur_twice_are_refused_or_the_first_or_last_stays(
    sparse_model: Path,
    rows: list[dict[str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    twice = written(tmp_path / "a.jsonl", [*rows[:9], {**rows[9], "id": "d4"}])
    command = ["embed", f"corpus={twice}", f"model={sparse_model}", f"out={tmp_path}/x"]
    assert main(command) == 2
    assert "document 10 has the id 'd4' of document 5" in capsys.readouterr().err
    for duplicates, kept in (("first", rows[:9]), ("last", [*rows[:4], *rows[5:9], rows[9]])):
        assert (
            main([*command[:-1], f"out={tmp_path}/{duplicates}", f"duplicates={duplicates}"]) == 0
        )
        alone = [{**row, "id": "d4"} if row is rows[9] else row for row in kept]
        single = written(tmp_path / f"{duplicates}.jsonl", alone)
        embed(tmp_path / f"{duplicates}1", f"corpus={single}", f"model={sparse_model}")
        expected = ranked(tmp_path / f"{duplicates}1", tmp_path)
        assert ranked(tmp_path / duplicates, tmp_path) == expected


def test_what_would_mix_models_or_settings_is_refused(
    sparse_model: Path,
    tiny_bert: Path,
    rows: list[dict[str, str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    some = written(tmp_path / "a.jsonl", rows[:20])
    out = tmp_path / "SIDX"
    embed(out, f"corpus={some}", f"model={sparse_model}", "unit=0.02")
    more = written(tmp_path / "b.jsonl", rows[20:30])
    append = ["embed", f"corpus={more}", f"out={out}", "--append"]
    assert main([*append, f"model={tiny_bert}"]) == 2
    assert "was embedded with other settings" in capsys.readouterr().err
    assert main([*append, "unit=0.01"]) == 2
    assert "unit: 0.02 -> 0.01" in capsys.readouterr().err
    assert main(["index", f"corpus={some}", f"out={out}", "--append"]) == 2
    assert "raydist embed --append weighs texts" in capsys.readouterr().err
    assert main(["index", f"corpus={some}", f"out={tmp_path}/IDX"]) == 0
    assert main(["embed", f"corpus={some}", f"out={tmp_path}/IDX", "--append"]) == 2
    assert "no model has embedded it" in capsys.readouterr().err


def test_shards_rank_as_the_whole_index(
    sparse_model: Path, rows: list[dict[str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "SIDX"
    embed(out, f"corpus={written(tmp_path / 'a.jsonl', rows[:30])}", f"model={sparse_model}")
    embed(out, f"corpus={written(tmp_path / 'b.jsonl', rows[30:])}", "--append")
    queries = [Query(name, text) for name, text in TEXTS.items()]
    whole = open_retriever(str(out)).search(queries, 20)
    assert open_sharded(str(out), 2, Here).search(queries, 20).table.equals(whole.table)
