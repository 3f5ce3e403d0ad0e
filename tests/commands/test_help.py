"""The help of each verb can be read: an example first, nothing twice, within the terminal."""

from __future__ import annotations

import pytest

from raydist.cli import main
from raydist.commands import VERBS


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_begins_with_what_it_does_and_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "-h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"raydist {verb}: {VERBS[verb]}"
    assert lines[1] == "" and lines[2].endswith((".", ":", ","))
    assert any("    " in line and f"raydist {verb}" in line for line in lines[3:]), "no example"
    assert max(map(len, lines)) <= 160


def test_a_block_is_explained_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-h"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    keys = text.split()
    assert "data.corpus.path" in keys and "data.queries.path" in keys
    assert "corpus.path" not in keys and "datasets.ID.path" not in keys
    assert "Keys: those of `data.corpus`." in text and "Keys: those of `data`." in text
    assert main(["fields", "train"]) == 0
    assert {"corpus.path", "datasets.ID.path"} <= {*capsys.readouterr().out.split()}


def test_a_narrow_terminal_has_two_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["search", "-h"]) == 0
    out = capsys.readouterr().out
    table = out[out.index("key  ") :].splitlines()
    assert table[0].split() == ["key", "help"] and max(map(len, table)) <= 80
    text = " ".join(" ".join(table).split())
    assert (
        "Documents per query; 10 if not given where they are shown. (integer, default 1000)" in text
    )
    assert "(list of text, required)" in text
