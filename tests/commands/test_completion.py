"""What a shell offers after the words typed so far."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydist.commands.completion import candidates


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (["trai"], ["train"]),
        (["search", "tie"], ["ties="]),
        (["search", "ties=a"], ["ties=anserini"]),
        (["train", "loss.ki"], ["loss.kind="]),
        (["train", "loss.kind=info"], ["loss.kind=infonce", "loss.kind=infonce_list"]),
        (["train", "loss.temperature="], []),
        (["index", "out=i"], []),
        (["nope", "x"], []),
    ],
)
def test_words_are_completed(words: list[str], completions: list[str]) -> None:
    assert list(candidates(words)) == completions


def test_folders_are_completed_where_a_verb_takes_one_as_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "IDX").mkdir()
    (tmp_path / "IDX.txt").touch()
    assert list(candidates(["verify", "I"])) == ["IDX"]
    assert list(candidates(["verify", ""])) == ["path=", "IDX"]
    assert list(candidates(["merge", "I"])) == ["IDX"]
    assert list(candidates(["search", "I"])) == []
