"""Beginnings of texts have the tokens of the whole, whatever the tokenizer makes of the text."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from raydist.models.texts.clip import Clipper
from raydist.models.texts.tokens import TextTokenizer
from tests.reranking import small_qwen3

WORDS = (  # noqa: SIM905
    "the cause of rain clouds heart's don't I'LL THEY'RE 12 2024 3.14159 -- ... !? naïve e\u0301te"
    " Ångström \u1112\u1161\u11ab 한국 日本語の文 中文。 <think> <|im_end|> [SEP] [MASK] aa-bb_cc"
    " http://x.y/z?q=1&r=2 \ufb01ne ½ \U0001f468\u200d\U0001f469\u200d\U0001f467 🇩🇪🇫🇷 \u0928\u093f"
).split()
SPACES = [" ", "  ", "\n", " \n ", "\n\n   \n", "\t", "\u3000", "", " " * 40, "\r\n", "\u00a0"]


def text_of(seed: int, length: int) -> str:
    """Returns a text of words, blanks, and odd long runs."""
    draw = random.Random(seed)
    parts: list[str] = []
    while sum(map(len, parts)) < length:
        parts.append(draw.choice(WORDS) + draw.choice(SPACES))
        if draw.random() < 0.03:
            run = draw.choice(["a", "7", " ", "\n", "!", "\u0301", "中", "x ", "\n ", "'"])
            parts.append(run * draw.randint(20, 300))
    return "".join(parts)


def trained(model: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram() if model == "unigram" else models.BPE())
    lines = [text_of(seed, 500) for seed in range(20)]
    if model == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=500, initial_alphabet=alphabet, special_tokens=["<think>"]
        )
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"]
        )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers(minilm: Path) -> dict[str, Tokenizer]:
    qwen = Tokenizer.from_str(small_qwen3.tokenizer().backend_tokenizer.to_str())
    spelled = Tokenizer.from_str(qwen.to_str())
    spelled.encode_special_tokens = True
    return {
        "wordpiece": Tokenizer.from_file(str(minilm / "tokenizer.json")),
        "qwen": qwen,
        "qwen, special tokens spelled": spelled,
        "gpt2": trained("gpt2"),
        "unigram": trained("unigram"),
    }


NAMES = ["wordpiece", "qwen", "qwen, special tokens spelled", "gpt2", "unigram"]


@pytest.mark.parametrize("name", NAMES)
def test_a_beginning_has_the_same_first_tokens(
    name: str, tokenizers: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Many short cuts instead of a few long ones.
    monkeypatch.setattr("raydist.models.texts.clip._CHARS_PER_TOKEN", 1)
    tokenizer = tokenizers[name]
    clipper = Clipper(tokenizer)
    draw = random.Random(7)
    shorter = 0
    tokenizer.no_truncation()
    for seed in range(150):
        text = text_of(seed, 1500)
        tokens = draw.randint(1, 120)
        beginning = clipper._clip(text, tokens, draw.randint(20, 500))
        assert text.startswith(beginning)
        whole = tokenizer.encode(text, add_special_tokens=False).ids
        part = tokenizer.encode(beginning, add_special_tokens=False).ids
        assert part[:tokens] == whole[:tokens]
        if len(beginning) < len(text):
            assert len(part) > tokens
            shorter += 1
    assert shorter > 100


@pytest.mark.parametrize("tail", ["think>", "\u0301" * 50, " " * 50 + "\nb", "bc", "'ll", "中"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_certain_does_not_change_with_what_follows(
    name: str, tail: str, tokenizers: dict[str, Tokenizer]
) -> None:
    from raydist.models.texts.clip import _certain

    tokenizer = tokenizers[name]
    clipper = Clipper(tokenizer)
    clipper._clip("a" * 10, 1, 5)
    assert clipper._margin is not None
    for end in ("<", "e\u0301\u0301", "x \n  ", "a", "\nI'", "aaaa " * 5):
        text = text_of(3, 300) + end
        count = _certain(tokenizer, text, clipper._margin)
        before = tokenizer.encode(text, add_special_tokens=False).ids
        after = tokenizer.encode(text + tail, add_special_tokens=False).ids
        assert count > 20 and before[:count] == after[:count]


def test_where_words_end_anywhere_the_whole_text_is_kept() -> None:
    def bpe(change: Callable[[Tokenizer], None]) -> Tokenizer:
        tokenizer = trained("gpt2")
        change(tokenizer)
        return tokenizer

    text = "rain " * 4000
    plain = Clipper(bpe(lambda _: None))
    assert len(plain([text], 10)[0]) < 2000
    for pattern in (r"(?<=a)b", r"A+B|A", r"\s+(?!\S)|x.*y"):
        splits = pre_tokenizers.Split(Regex(pattern), "isolated")
        clipper = Clipper(bpe(lambda t, s=splits: setattr(t, "pre_tokenizer", s)))  # type: ignore[misc]
        assert clipper([text], 10) == [text]
    odd = normalizers.Replace(Regex("a.*b"), "c")
    assert Clipper(bpe(lambda t: setattr(t, "normalizer", odd)))([text], 10) == [text]


def test_endless_words_and_blanks_are_read_to_their_end(tokenizers: dict[str, Tokenizer]) -> None:
    clipper = Clipper(tokenizers["wordpiece"])
    for text in ("a" * 20_000, " " * 20_000 + "rain", "\u0301" * 20_000):
        assert clipper([text], 10) == [text]


def test_a_long_text_costs_what_is_read_of_it(minilm: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = TextTokenizer(AutoTokenizer.from_pretrained(minilm), max_length=256)
    text = "rain falls from the clouds. " * 33_000
    (ids,) = tokenizer([text[:20_000]])
    start = time.perf_counter()
    assert tokenizer([text]) == [ids] and len(ids) == 256
    assert time.perf_counter() - start < 0.2  # the whole takes a second
