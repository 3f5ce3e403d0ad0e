from __future__ import annotations

import pytest

from raydist.config.base import Block, identity
from raydist.config.load import load
from raydist.config.search import SearchConfig
from raydist.data.spec import CorpusSource, QrelsSource, QueriesSource, RunSource, split_paths
from raydist.errors import ConfigError


class Verb(Block):
    corpus: CorpusSource
    queries: QueriesSource | None = None
    qrels: QrelsSource | None = None
    run: RunSource | None = None


def test_a_scalar_is_the_path_and_goes_with_dotted_keys() -> None:
    config = load(
        Verb,
        [],
        [
            "corpus.fields.id=docno",
            "corpus=a.jsonl,b{1,2}.jsonl",
            "corpus.ids=keep.txt",
            "run=r.txt",
        ],
    )
    assert config.corpus.paths == ("a.jsonl", "b{1,2}.jsonl")
    assert config.corpus.options() == {
        "ids": "keep.txt",
        "exclude_ids": None,
        "missing": "error",
        "format": None,
        "fields": {"id": "docno"},
        "order": "source",
        "on_bad": "error",
        "rejects": None,
        "encoding_errors": "strict",
    }
    assert config.run == RunSource(path="r.txt")


def test_the_docstring_collection_needs_no_path() -> None:
    config = load(Verb, [], ["corpus.kind=docstrings", "queries.kind=docstrings"])
    assert config.corpus.paths == ("docstrings:",)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["corpus.ids=x"], "corpus: a path is required"),
        (["corpus=a", "corpus.kind=docstrings"], "takes no path"),
        (["corpus=a", "corpus.idz=x"], r"did you mean corpus\.ids"),
        (["corpus=a", "corpus.on_bad=maybe"], "corpus.on_bad = 'maybe'"),
        (["corpus=a", "corpus.fields.name=x"], "corpus.fields.name: unknown key"),
        (["corpus=a", "run="], "run.path"),
    ],
)
def test_mistakes_are_named_by_their_key(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Verb, [], words)


def test_where_rejects_go_does_not_change_the_result() -> None:
    a = identity(CorpusSource(path=("c",), rejects="r.jsonl"))
    assert a == identity(CorpusSource(path=("c",))) != identity(CorpusSource(path=("d",)))


def test_paths_are_cut_at_commas_outside_brackets() -> None:
    assert split_paths("a, b[1,2],c{x,y}") == ["a", "b[1,2]", "c{x,y}"]
    assert split_paths("") == []


def test_a_field_that_earlier_versions_did_not_have_counts_once_it_is_set() -> None:
    words = ["index=I", "queries=q.tsv"]
    before = load(SearchConfig, (), words).identity()["queries"]
    after = load(SearchConfig, (), [*words, "queries.exclude_own=true"]).identity()["queries"]
    assert after == before | {"exclude_own": True} and "exclude_own" not in before
