"""Qrels and runs with what real ones have.

The values are written down, or read by ir_measures where it reads the form; NaN and the like by
trec_eval's rules.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.oddities import Cell, Refused

TREC = b"1 0 a 1\n1 0 b 0\n2 0 a -1\n"
JUDGED = {"1": {"a": 1, "b": 0}, "2": {"a": -1}}
ROWS = [("1", "a", 2.5), ("1", "b", 1.5), ("2", "c", 0.5)]
RUN = b"1 Q0 a 1 2.5 t\n1 Q0 b 2 1.5 t\n2 Q0 c 1 0.5 t\n"


def _parquet(**columns: list[Any]) -> Callable[[], dict[str, bytes]]:
    def files() -> dict[str, bytes]:
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        return {"file.parquet": sink.getvalue()}

    return files


def _qrels_of_ir_measures() -> dict[str, dict[str, int]]:
    judged: dict[str, dict[str, int]] = {}
    for row in ir_measures.read_trec_qrels(TREC.decode()):
        judged.setdefault(row.query_id, {})[row.doc_id] = row.relevance
    return judged


def _qrels(name: str, content: bytes, expected: Any, file: str = "qrels.txt") -> Cell:
    return Cell(f"qrels: {name}", {file: content}, expected)


def _run(name: str, content: bytes, expected: Any, file: str = "run.txt", **options: Any) -> Cell:
    return Cell(f"run: {name}", {file: content}, expected, options)


def _json(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent).encode()


JSON_QRELS = [
    {"query-id": "1", "corpus-id": "a", "score": 1},
    {"query-id": "1", "corpus-id": "b", "score": 0},
    {"query-id": 2, "corpus-id": "a", "score": -1.0},
]
JSON_RUN = [dict(zip(("query_id", "doc_id", "score"), row)) for row in ROWS]

QRELS = [
    _qrels("TREC", TREC, _qrels_of_ir_measures),
    _qrels("crlf, no end", TREC.replace(b"\n", b"\r\n")[:-2], JUDGED),
    _qrels("tabs", TREC.replace(b" ", b"\t"), JUDGED),
    _qrels(
        "blanks in a row and around", TREC.replace(b" ", b"   ").replace(b"\n", b" \n "), JUDGED
    ),
    _qrels("BEIR", b"query-id\tcorpus-id\tscore\n1\ta\t1\n1\tb\t0\n2\ta\t-1\n", JUDGED),
    _qrels("byte order mark", b"\xef\xbb\xbf" + TREC, JUDGED),
    _qrels("gzip", gzip.compress(TREC), JUDGED, "qrels.gz"),
    _qrels("tabs and an id with a blank", b"1\ta b\t1\n1\tc d\t0\n", {"1": {"a b": 1, "c d": 0}}),
    _qrels("tabs, TREC and ids with blanks", b"q 1\t0\ta b\t1\n", {"q 1": {"a b": 1}}),
    _qrels("no-break space in an id", "1 0 a\u00a0b 1\n".encode(), {"1": {"a\u00a0b": 1}}),
    _qrels("ideographic space in an id", "1\ta\u3000b\t1\n".encode(), {"1": {"a\u3000b": 1}}),
    _qrels("next line in an id", "1 0 a\u0085b 1\n".encode(), {"1": {"a\u0085b": 1}}),
    _qrels("tabs and blanks", b"1\t0 a\t1\n2\ta\n", Refused(r"line 2: .*, 3 columns")),
    _qrels("tabs, two columns", b"1 0\ta 1\n", Refused(r"line 1: .*\(tabs separate")),
    _qrels("a pair twice", TREC + b"1 0 a 1\n", JUDGED),
    _qrels(
        "a pair twice, other grades",
        TREC + b"1 0 a 2\n",
        Refused("line 4: .*2 here and 1 on line 1"),
    ),
    _qrels(
        "a header of something else",
        b"query_id\tsplit\tsource\tidentical\n1\ttest\tchebi\t1\n",
        Refused("line 1: .*a header with columns such as doc_id and relevance"),
    ),
    _qrels(
        "a header in another order, with more columns",
        b"query-id\tscore\tcorpus-id\tby\n1\t1\ta\tann\n1\t0\tb\tbob\n2\t-1\ta\tann\n",
        JUDGED,
    ),
    _qrels(
        "a header of other names",
        b"query_id\tpassage\trelevance\n1\ta\t1\n1\tb\t0\n2\ta\t-1\n",
        JUDGED,
    ),
    _qrels(
        "files joined with their headers",
        b"query-id\tcorpus-id\tscore\n1\ta\t1\n1\tb\t0\nquery-id\tcorpus-id\tscore\n2\ta\t-1\n",
        JUDGED,
    ),
    _qrels("a run", b"1 Q0 a 1 2.5 t\n", Refused("line 1: .*not the 6 columns of a run")),
    _qrels("whole numbers with a point", b"1 0 a 1.0\n1 0 b 0.00\n2 0 a -1.0\n", JUDGED),
    _qrels(
        "lists of answers (LoTTE)",
        b'{"qid": 0, "query": "a", "answer_pids": [52, 7]}\n{"qid": 1, "query": "b", '
        b'"answer_pids": []}\n',
        {"0": {"52": 1, "7": 1}},
        "qas.search.jsonl",
    ),
    Cell(
        "qrels: lists of answers (BRIGHT)",
        _parquet(query=["why"], id=["0"], gold_ids=[["x/y.txt", "z.txt"]]),
        {"0": {"x/y.txt": 1, "z.txt": 1}},
    ),
    _qrels(
        "commas", b"query_id,doc_id,relevance\n1,a,1\n", Refused("blanks .* commas do not"), "q.csv"
    ),
    _qrels(
        "labels of NTCIR", b"0001 clueweb12-0 L2\n", Refused("whole number as relevance, not 'L2'")
    ),
    _qrels("a fraction", b"1 0 a 0.5\n", Refused("line 1: .*whole number as relevance")),
    _qrels(
        "a digit of another script", "1 0 a \u0661\n".encode(), Refused("line 1: .*whole number")
    ),
    _qrels("not UTF-8", b"1 0 \xe9 1\n", Refused(r"line 1: .*byte offset 4 \(0xe9\)")),
    _qrels("subtopics, the highest grade", b"1 1 a 1\n1 2 a 2\n1 1 b 0\n", {"1": {"a": 2, "b": 0}}),
    _qrels(
        "a subtopic twice",
        b"1 1 a 1\n1 2 a 2\n1 2 a 1\n",
        Refused("line 3: .*1 here and 2 on line 2"),
    ),
    _qrels("iteration and document exchanged", b"1 a 0 1\n1 b 0 0\n", Refused("documents, is '0'")),
    _qrels("JSON lines", b"\n".join(map(_json, JSON_QRELS)), JUDGED, "qrels.jsonl"),
    _qrels("JSON array", _json(JSON_QRELS, 1), JUDGED, "qrels.json"),
    _qrels("JSON mapping", _json(JUDGED, 2), JUDGED, "qrels.json"),
    _qrels("JSON mapping on a line", _json(JUDGED), JUDGED, "qrels.json"),
    _qrels("JSON, a key twice", b'{"1": {"a": 1, "a": 0}}', Refused("the key 'a' occurs twice")),
    _qrels("JSON, a truth value", b'{"1": {"a": true}}', Refused("query '1': .*whole number")),
    _qrels("JSON, cut off", _json(JUDGED, 2)[:-3], Refused("expected JSON")),
    Cell(
        "qrels: Parquet of BEIR",
        _parquet(
            **{"query-id": ["1", "1", "2"], "corpus-id": ["a", "b", "a"], "score": [1, 0, -1]}
        ),
        JUDGED,
    ),
    Cell(
        "qrels: Parquet of ir_measures",
        _parquet(query_id=[1, 1, 2], doc_id=["a", "b", "a"], relevance=[1.0, 0.0, -1.0]),
        JUDGED,
    ),
    Cell(
        "qrels: Parquet, no grade",
        _parquet(query_id=["1"], doc_id=["a"]),
        Refused("no field relevance or rel or score; there are query_id, doc_id"),
    ),
    Cell(
        "qrels: splits of BEIR",
        {"qrels/test.tsv": TREC, "qrels/train.tsv": TREC},
        Refused("several splits; choose one of .*/qrels/test[*], .*/qrels/train[*]"),
        path="qrels",
    ),
    Cell("qrels: two files", {"a.txt": TREC[:16], "b.txt": TREC[16:]}, JUDGED, path="*.txt"),
]

RUNS = [
    _run("TREC", RUN, lambda: [tuple(row) for row in ir_measures.read_trec_run(RUN.decode())]),
    _run("crlf, no end", RUN.replace(b"\n", b"\r\n")[:-2], ROWS),
    _run("tabs", RUN.replace(b" ", b"\t"), ROWS),
    _run("tabs and blanks around", RUN.replace(b" ", b" \t "), ROWS),
    _run("blanks in a row, empty lines", RUN.replace(b" ", b"  ").replace(b"\n", b" \n\n "), ROWS),
    _run("a query id that begins with a brace", b"{1 Q0 a 1 2.5 t\n", [("{1", "a", 2.5)]),
    _run("a query id that begins with a bracket", b"[ Q0 a 1 2.5 t\n", [("[", "a", 2.5)]),
    _run("gzip", gzip.compress(RUN), ROWS, "run.gz"),
    _run("tabs and ids with blanks", b"q 1\tQ0\ta b\t1\t2.5\tmy tag\n", [("q 1", "a b", 2.5)]),
    _run("no-break space in an id", "1 Q0 a\u00a0b 1 2.5 t\n".encode(), [("1", "a\u00a0b", 2.5)]),
    _run(
        "ideographic space in an id",
        "1\tQ0\ta\u3000b\t1\t2.5\tt\n".encode(),
        [("1", "a\u3000b", 2.5)],
    ),
    _run("form feed between", RUN.replace(b"1 Q0", b"1\fQ0"), ROWS),
    _run(
        "a line with tabs among others",
        RUN.replace(b"2 Q0 c 1 0.5 t", b"2\tQ0\tc\t1\t0.5\tt"),
        ROWS,
    ),
    _run(
        "MS MARCO",
        b"1\ta\t1\n1\tb\t2\n2\tc\t1\n",
        [("1", "a", 1.0), ("1", "b", 0.5), ("2", "c", 1.0)],
    ),
    _run("MS MARCO, blanks", b"1 a 1\n1 b 4\n", [("1", "a", 1.0), ("1", "b", 0.25)]),
    _run("MS MARCO, rank 0", b"1\ta\t0\n", Refused("line 1: .*a rank of 1 or more, not 0")),
    _run("MS MARCO, scores", b"1\ta\t1.5\n", Refused("line 1: .*whole number as rank, not '1.5'")),
    _run("MS MARCO, not in order", b"1\ta\t2\n1\tb\t1\n", Refused("1 comes after 2.*sort=true")),
    _run("MS MARCO, sorted", b"1\ta\t2\n1\tb\t1\n", [("1", "b", 1), ("1", "a", 0.5)], sort=True),
    _run("three columns are qrels", b"1\ta\t1\n1\tb\t1\n", Refused("not scores or grades$")),
    _run("qrels, sorted", b"1 a 1\n2 a 1\n1 b 1\n", Refused("'1': 1 comes after 1"), sort=True),
    _run("UTF-16 without a mark", RUN.decode().encode("utf-16-le"), ROWS),
    _run(
        "ColBERT",
        b"1\ta\t1\t2.5\n1\tb\t2\t1.5\n2\tc\t1\t0.5\n",
        ROWS,
        "msmarco.ranking.tsv",
    ),
    _run("ColBERT, from 0", b"1 a 0 2.5\n1 b 1 1.5\n2 c 0 0.5\n", ROWS),
    _run(
        "ColBERT, no score", b"1\ta\t1\tx\n", Refused("line 1: .*finite number as score, not 'x'")
    ),
    _run("judgements", b"1 0 184 1\n1 0 185 1\n", Refused("184 in the third of four columns")),
    _run("a judgement of document 1", b"1 0 1 1\n", Refused("the ranks 1, 2, ... of each query")),
    _run("four columns, other ranks", b"1 a 1 2\n2 b 2 1\n", Refused("query '2': 2 in the third")),
    _run("five columns", b"1 Q0 a 1 2.5\n", Refused(r"line 1: .*6 columns .* or 3 .*not 5")),
    _run(
        "other columns later",
        RUN + b"2 d 2\n",
        Refused("line 4: .*6 columns like the lines before, not 3"),
    ),
    _run(
        "a document twice",
        RUN + b"\n2 Q0 c 2 0.5 t\n",
        Refused("lines 3 and 5: .*'2' ranks document 'c' twice"),
    ),
    _run(
        "a document twice, sorted",
        b"1 Q0 a 1 1 t\n1 Q0 a 2 2 t\n",
        Refused("lines 1 and 2: "),
        sort=True,
    ),
    _run("queries that return", RUN + b"1 Q0 d 3 0.1 t\n", Refused(r"not together \(sort=true")),
    _run(
        "queries that return, sorted",
        RUN + b"1 Q0 d 3 9 t\n",
        [("1", "d", 9.0), *ROWS],
        sort=True,
    ),
    _run("not finite", b"1 Q0 a 1 inf t\n", Refused("line 1: .*finite number as score")),
    _run("a score as short as can be", b"1 Q0 a 1 .1 t\n", [("1", "a", float(np.float32(0.1)))]),
    _run("an empty column", b"1\tQ0\t\t1\t2\tt\n", Refused("line 1: .*no empty column")),
    _run("JSON mapping", _json({"1": {"b": 1.5, "a": 2.5}, "2": {"c": 0.5}}, 1), ROWS, "run.json"),
    _run("JSON lines", b"\n".join(map(_json, JSON_RUN)), ROWS, "run.jsonl"),
    _run("JSON, a key twice", b'{"1": {"a": 1, "a": 2}}', Refused("the key 'a' occurs twice")),
    _run("JSON, no number", b'{"1": {"a": "x"}}', Refused("query '1': .*finite number as score")),
    Cell(
        "run: several files",
        {"a.txt": RUN, "b.txt": RUN},
        Refused("these are 2 files"),
        path="*.txt",
    ),
    Cell(
        "run: Parquet",
        _parquet(query_id=["1", "1", "2"], doc_id=["a", "b", "c"], score=[2.5, 1.5, 0.5]),
        ROWS,
    ),
    Cell(
        "run: Parquet, no score",
        _parquet(query_id=["1", "1"], doc_id=["a", "b"], score=[float("nan"), 1.5]),
        Refused(r"run row 1: .*score nan is not finite$"),
    ),
    Cell(
        "run: Parquet, no query",
        _parquet(query_id=["1", None], doc_id=["a", "b"], score=[2.5, 1.5]),
        Refused(r"run row 2: its query_id is null"),
        {"sort": True},
    ),
    Cell(
        "run: Parquet of PyTerrier",
        _parquet(
            qid=["1", "1", "2"],
            docid=[0, 1, 2],
            docno=["a", "b", "c"],
            rank=[0, 1, 0],
            score=[2.5, 1.5, 0.5],
        ),
        ROWS,
    ),
    Cell(
        "run: Parquet of ranx",
        _parquet(q_id=["1", "1", "2"], doc_id=["a", "b", "c"], score=[2.5, 1.5, 0.5]),
        ROWS,
    ),
    Cell(
        "run: Parquet, a document twice",
        _parquet(query_id=["1", "1"], doc_id=["a", "a"], score=[2.5, 1.5]),
        Refused("rows 1 and 2: query '1' ranks document 'a' twice"),
    ),
]
