"""Queries as data sets of recent years have them: in lines, tables and JSON.

What is expected is written down from the data sets' own descriptions.
"""

from __future__ import annotations

import json

from tests.data.oddities import Cell, Refused


def _lines(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


_CAST = [
    {
        "number": 81,
        "title": "a title of the topic",
        "turn": [
            {
                "number": 1,
                "raw_utterance": "How is it made?",
                "manual_rewritten_utterance": "How is glass made?",
                "automatic_rewritten_utterance": "How is glass it made?",
                "passage": "an answer",
            },
            {
                "number": 2,
                "raw_utterance": "And blown?",
                "manual_rewritten_utterance": "How is glass blown?",
                "automatic_rewritten_utterance": "And blown?",
            },
        ],
    }
]
_IKAT = [
    {
        "number": "9-1",
        "ptkb": {"1": "I am vegan."},
        "turns": [{"turn_id": 1, "utterance": "Help me", "resolved_utterance": "Help me cook"}],
    }
]
_CAST_2022 = [
    {
        "number": 132,
        "turn": [
            {"number": "1-1", "participant": "User", "utterance": "Why?"},
            {"number": "1-2", "participant": "System", "response": "Because."},
            {"number": "1-3", "participant": "User", "utterance": "So?"},
        ],
    }
]
_DPR = b"who won the first prize\t['Wilhelm R']\nwhen is it out\t['May 18, 2018']\n"

QUERIES = [
    Cell("queries: jsonl of BEIR", {"q.jsonl": b'{"_id": "1", "text": "a"}'}, [("1", "a")]),
    Cell("queries: a JSON array", {"q.json": b'[{"id": 1, "query": "a"}]'}, [("1", "a")]),
    Cell("queries: tsv", {"q.tsv": b"1\ta b\n2\tc\n"}, [("1", "a b"), ("2", "c")]),
    Cell(
        "queries: three columns",
        {"q.tsv": b"1\ta b\ten\n2\tc\ten\n"},
        Refused(r"which of the 3 columns.*queries\.fields\.id=1 queries\.fields\.text=2"),
    ),
    Cell(
        "queries: three columns with a choice",
        {"q.tsv": b"1\ta b\ten\n2\tc\ten\n"},
        [("1", "a b"), ("2", "c")],
        {"fields": {"id": "1", "text": "2"}},
    ),
    Cell(
        "queries: csv with a header",
        {"q.csv": b'qid,query\n1,"a, b"\n'},
        [("1", "a, b")],
    ),
    Cell(
        "queries: UTF-16",
        {"q.tsv": "1\t\u00fcber\n".encode("utf-16")},
        [("1", "\u00fcber")],
    ),
    *(
        Cell(
            f"queries: conversations of CAsT, {field or 'as they were said'}",
            {"q.json": json.dumps(_CAST, indent=2).encode()},
            [("81_1", first), ("81_2", second)],
            {"fields": {"text": field}} if field else {},
        )
        for field, first, second in (
            ("", "How is it made?", "And blown?"),
            ("manual_rewritten_utterance", "How is glass made?", "How is glass blown?"),
            ("automatic_rewritten_utterance", "How is glass it made?", "And blown?"),
        )
    ),
    Cell(
        "queries: conversations of CAsT without such a form",
        {"q.json": json.dumps(_CAST, indent=2).encode()},
        Refused("no field 'rewritten'; it has query_id, raw_utterance, manual_rewritten_utterance"),
        {"fields": {"text": "rewritten"}},
    ),
    Cell(
        "queries: conversations of CAsT 2022, the system's turns are none",
        {"q.json": json.dumps(_CAST_2022).encode()},
        [("132_1-1", "Why?"), ("132_1-3", "So?")],
    ),
    Cell(
        "queries: conversations of iKAT",
        {"q.json": json.dumps(_IKAT, indent=4).encode()},
        [("9-1_1", "Help me")],
    ),
    Cell(
        "queries: objects by their ids",
        {"q.json": b'{"economics-1": {"query": "a", "domain": "e"}, "history-2": {"query": "b"}}'},
        [("economics-1", "a"), ("history-2", "b")],
    ),
    Cell(
        "queries: texts by their ids",
        {"q.json": b'{"1": "a", "2": "b"}'},
        Refused("it has 1, 2: .*if these are ids and their values the texts, write an object"),
    ),
    Cell(
        "queries: questions and answers of DPR",
        {"nq-test.csv": _DPR},
        Refused(r"which of the 2 columns.*queries\.fields\.id=1"),
    ),
    Cell(
        "queries: LoTTE",
        {"qas.search.jsonl": _lines({"qid": 0, "query": "a", "url": "u", "answer_pids": [52]})},
        [("0", "a")],
    ),
    Cell(
        "queries: BRIGHT",
        {"q.jsonl": _lines({"query": "a", "reasoning": "r", "id": "0", "gold_ids": ["x/y.txt"]})},
        [("0", "a")],
    ),
    Cell(
        "queries: tip of the tongue",
        {"q.jsonl": _lines({"id": "763", "title": "t", "text": "a", "sentence_annotations": [{}]})},
        [("763", "a")],
    ),
    Cell(
        "queries: HotpotQA",
        {"q.json": json.dumps([{"_id": "5a", "answer": "yes", "question": "a"}]).encode()},
        [("5a", "a")],
    ),
    Cell(
        "queries: training data of Mr. TyDi",
        {"q.jsonl": _lines({"query_id": "1", "query": "a", "positive_passages": [{"docid": "2"}]})},
        [("1", "a")],
    ),
    Cell(
        "queries: two ids",
        {"q.jsonl": b'{"id": 1, "qid": "a", "text": "x"}'},
        Refused(r"choose with queries\.fields\.id=id or queries\.fields\.id=qid"),
    ),
]
