"""Models of released shapes with random weights, and the texts that they read: no downloads."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

WORDS = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("", "n", "s", "rk", "l")]
_END, _PAD = "<|im_end|>", "<|endoftext|>"
_SPECIAL = (_PAD, "<|im_start|>", _END, "<think>", "</think>")


def texts_of(count: int, least: int, most: int, seed: int = 0) -> list[str]:
    """Returns texts of mixed lengths: log-uniform numbers of words."""
    draw = random.Random(seed)
    low, high = np.log(least), np.log(most)
    sizes = [int(np.exp(draw.uniform(low, high))) for _ in range(count)]
    return [" ".join(draw.choices(WORDS, k=n)) for n in sizes]


def bge_base(folder: Path, tiny: bool = False) -> Path:
    """Writes an encoder of bge-base's shape (BERT base), the vocabulary aside."""
    from raydist.models.scratch import create

    size: dict[str, Any] = {"layers": 12, "hidden": 768, "heads": 12, "vocab": 8192}
    if tiny:
        size = {"layers": 2, "hidden": 32, "heads": 2, "vocab": 512}
    return folder if folder.is_dir() else create(texts_of(2000, 20, 60), folder, **size)


def qwen3_06b(folder: Path, tiny: bool = False) -> Path:
    """Writes a decoder of Qwen3-0.6B's shape, which Qwen3-Reranker-0.6B has, too."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    if folder.is_dir():
        return folder
    tokenizer = _tokenizer()
    size = {
        "vocab_size": 151_669,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
    if tiny:
        size |= {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 192}
        size |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        size |= {"head_dim": 16}
    torch.manual_seed(0)
    config = Qwen3Config(
        **size,  # type: ignore[arg-type]
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    """Returns a byte-level tokenizer with the special tokens of Qwen3's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from raydist.reranking.spec import PREFIX, SUFFIX, TASK

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [f"{TASK} <Instruct>: <Query>: <Document>: {PREFIX} {SUFFIX}", "yes", "no"] * 20
    backend.train_from_iterator([*lines, *texts_of(500, 20, 60)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=_END,
        pad_token=_PAD,
        padding_side="left",
        model_max_length=131_072,
    )
