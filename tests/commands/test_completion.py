"""What a shell offers after the words typed so far."""

from __future__ import annotations

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
