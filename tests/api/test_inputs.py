"""Objects are read as the files of the same rows are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import raydist as rd
from raydist.api.inputs import queries_of
from raydist.records import DiversityQrels, Document, Query
from tests.outputs import results

ROWS = [
    {"id": f"d{i}", "title": f"title {i}" if i % 2 else "", "text": f"word{i % 7} common {i}"}
    for i in range(20)
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def frame() -> Any:
    import pandas

    return pandas.DataFrame(ROWS)


def frame_with_an_index() -> Any:
    return frame().set_index("id")


def dataset() -> Any:
    import datasets

    return datasets.Dataset.from_list(ROWS)


def streamed() -> Any:
    return dataset().to_iterable_dataset()


def shuffled_view() -> Any:
    """A Dataset whose rows are chosen from a longer table."""
    import datasets

    rows = [{"id": "no", "title": "", "text": "left out"}, *ROWS]
    return datasets.Dataset.from_list(rows).select(range(1, 21))


FORMS: dict[str, Callable[[], Any]] = {
    "a list of mappings": lambda: ROWS,
    "a generator": lambda: (row for row in ROWS),
    "records": lambda: [Document(r["id"], r["text"], r["title"]) for r in ROWS],
    "a mapping": lambda: {r["id"]: {"title": r["title"], "text": r["text"]} for r in ROWS},
    "an Arrow table": lambda: pa.Table.from_pylist(ROWS),
    "a DataFrame": frame,
    "a DataFrame with an index": frame_with_an_index,
    "a Dataset": dataset,
    "a streamed Dataset": streamed,
    "chosen rows of a Dataset": shuffled_view,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the file of the same rows."""
    folder = tmp_path_factory.mktemp("file")
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    rd.index(folder / "corpus.jsonl", folder / "idx")
    return folder / "idx"


@pytest.mark.parametrize("form", FORMS)
def test_an_index_of_an_object_is_that_of_the_file(form: str, built: Path) -> None:
    rd.index(FORMS[form](), "idx")
    assert results(Path("idx")) == results(built)
    assert {each.name for each in Path().iterdir()} == {"idx"}, "what was spooled is removed"


def test_rows_beyond_one_file_are_all_read(monkeypatch: pytest.MonkeyPatch, built: Path) -> None:
    from raydist.api import spool

    monkeypatch.setattr(spool, "_ROWS", 6)
    rd.index(iter(ROWS), "idx")
    queries = {"a": "common", "b": "word3 title"}
    run, expected = (rd.search(each, queries, k=50) for each in ("idx", built))
    assert run.to_arrow().equals(expected.to_arrow()) and len(run["a"]) == 20


def test_a_block_names_the_columns_of_an_object() -> None:
    import pandas

    table = pandas.DataFrame({"key": [7, 8], "body": ["a heron", "a canal"], "other": [[1], [2]]})
    index = rd.index({"path": table, "fields": {"id": "key", "text": "body"}}, "idx")
    assert index["8"].text == "a canal"


def test_ids_to_delete_come_as_a_list() -> None:
    rd.index(ROWS, "idx")
    assert len(rd.index(out="idx", delete=["d1", "d2"])) == 18


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], r"^corpus \(list\): has no rows"),
        ([{"id": "1"}], r"^corpus \(list\).*no field for the text"),
        (
            [{"id": "1", "text": "a"}, {"id": "2", "text": 5}],
            r"row 1: text = 5 is of type int, oth",
        ),
        ([{"id": "1", "text": None}], r"^corpus \(list\): column 'text' \(text\) is null"),
        ({"1": "\ud800"}, r"^corpus \(dict\): row 0: text = '.ud800': has no place in a table"),
        ([3], r"^corpus \(list\): row 0: expected a mapping of its fields, not int"),
        (object(), r"^corpus \(object\): is not an iterable of documents"),
    ],
)
def test_what_is_no_corpus_is_named_with_its_key(corpus: Any, message: str) -> None:
    with pytest.raises(rd.DataError, match=message):
        rd.index(corpus, "idx")
    assert not Path("idx").exists()


def test_a_number_and_a_series_are_no_corpus() -> None:
    import pandas

    with pytest.raises(rd.ConfigError, match=r"^corpus = 5: expected a path, or documents"):
        rd.index(5, "idx")
    with pytest.raises(rd.DataError, match=r"^corpus \(Series\): is a single column"):
        rd.index(pandas.Series({"1": "heron"}), "idx")


def test_a_list_of_strings_names_files_or_is_said_to_need_ids() -> None:
    Path("corpus.jsonl").write_text('{"id": "1", "text": "a heron"}\n')
    assert len(rd.index(["corpus.jsonl"], "idx")) == 1
    with pytest.raises(rd.ConfigError, match=r"^corpus = \['some text', …\]: .* give \{id: text\}"):
        rd.index(["some text", "another"], "other")
    with pytest.raises(rd.ConfigError, match=r"^queries = \['herons'\]: .* queries have ids"):
        rd.rerank("bm25", run={"q": {"1": 1}}, queries=["herons"], index="idx", out="run.txt")
    with pytest.raises(rd.DataError, match=r"absent\.jsonl: no such file"):
        rd.index(["corpus.jsonl", "absent.jsonl"], "other")


def test_what_a_result_does_not_have_is_a_key_error_in_a_sentence() -> None:
    index = rd.index(ROWS, "idx")
    run = index.search({"q1": "common"}, k=2)
    result = rd.evaluate(run, {"q1": {"d1": 1}}, measures=["RR"], tracking="none")
    with pytest.raises(KeyError) as missing:
        run["q2"]
    assert isinstance(missing.value, rd.NotFoundError) and isinstance(
        missing.value, rd.RaydistError
    )
    assert str(missing.value) == "'q2': no query of this id in the run (run.query_ids)"
    with pytest.raises(rd.NotFoundError, match="'d77': no document of this id in idx"):
        index["d77"]
    with pytest.raises(rd.NotFoundError, match="measure 'AP': expected one of RR"):
        result["run", "AP"]
    with pytest.raises(rd.NotFoundError, match="run 'bm25': expected one of run"):
        result["bm25", "RR"]
    with pytest.raises(rd.NotFoundError, match=r"'RR': expected a run and a measure"):
        result["RR"]  # type: ignore[index]


def test_whole_numbers_as_ids_are_texts_beside_others() -> None:
    import pandas

    rows = [{"id": 1, "text": "heron"}, {"id": "b", "text": "canal"}]
    forms = (rows, {1: "heron", "b": "canal"}, pandas.DataFrame(rows))
    for form in forms:
        assert queries_of(form) == [Query("1", "heron"), Query("b", "canal")]
    run: dict[Any, dict[Any, Any]] = {7: {1: 2.0, "b": 1}}
    result = rd.evaluate(run, {7: {"b": 1}}, measures="RR", tracking="none")
    assert result.to_arrow()["mean"].to_pylist() == [0.5]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"q": {"d": "x"}}, "'q', 'd': expected a number as score, not 'x'"),
        ({"q": ["d"]}, "'q' has a list; expected a mapping from documents to scores"),
    ],
)
def test_what_is_no_run_is_said(run: Any, message: str) -> None:
    with pytest.raises(rd.DataError, match=message):
        rd.evaluate(run, {"q": {"d": 1}}, tracking="none")


def test_queries_judgements_and_runs_come_in_many_forms() -> None:
    import pandas

    queries = {"q1": "heron", "q2": "canal"}
    expected = [Query("q1", "heron"), Query("q2", "canal")]
    table = pandas.DataFrame({"query_id": ["q1", "q2"], "text": ["heron", "canal"]})
    for each in (queries, expected, table, pa.table(table), table.to_dict("records")):
        assert queries_of(each) == expected
    with pytest.raises(rd.DataError, match="twice"):
        queries_of([{"id": "q1", "text": "a"}, {"id": "q1", "text": "b"}])

    scores = {"q1": {"d1": 1.0, "d2": 2.0}}
    rows = pandas.DataFrame({"query_id": ["q1"] * 2, "doc_id": ["d1", "d2"], "score": [1.0, 2.0]})
    grades = pandas.DataFrame({"query_id": ["q1"], "doc_id": ["d1"], "relevance": [1]})
    run = rd.Run.from_lists([("q1", ["d2", "d1"], [2.0, 1.0])])
    run.write("run.txt")
    Path("qrels.txt").write_text("q1 0 d1 1\n")
    for ranking in (scores, rows, run, "run.txt", Path("run.txt")):
        for qrels in ({"q1": {"d1": 1}}, grades, grades.to_dict("records"), "qrels.txt"):
            result = rd.evaluate(ranking, qrels, measures=["RR"], tracking="none")
            assert result.to_arrow()["mean"].to_pylist() == [0.5]
    several = rd.evaluate([run, "run.txt"], grades, measures=["RR"], tracking="none")
    assert len(several.to_pandas()) == 2


def test_judgements_by_subtopic_keep_their_subtopics() -> None:
    qrels = DiversityQrels(
        {"q1": {"d1": 1, "d2": 1}}, {"q1": {("d1", "1"): 1, ("d2", "1"): 1, ("d1", "2"): 1}}
    )
    result = rd.evaluate({"q1": {"d1": 1.0}}, qrels, measures=["RR"], tracking="none")
    assert isinstance(result.measured.qrels, DiversityQrels)
    assert result.measured.qrels.subtopics == qrels.subtopics


def test_a_call_with_a_yaml_file_is_the_command_with_it() -> None:
    Path("job.yaml").write_text("out: idx\nanalyzer: {stemmer: none}\n")
    index = rd.index(ROWS, config="job.yaml", store=False)
    assert index.manifest["config"]["analyzer"]["stemmer"] == "none"
    with pytest.raises(rd.ConfigError, match="has no texts"):
        index["d1"]
