"""A small random Qwen3, its byte-level tokenizer with the real one's special tokens."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from raydist.reranking.spec import PREFIX, SUFFIX, TASK

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
# How Qwen tokenizers cut text before merging; its own words for "letters", "one digit", ...
PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS = (
    "heart lung liver kidney disease acute chronic infection therapy protein gene cell blood "
    "pressure high low child adult risk factor trial placebo dose vaccine virus bacteria brain "
    "stroke cancer tumour breast skin bone muscle pain fever cough sleep diet sugar insulin"
)
WORDS = _WORDS.split()


def tokenizer(size: int = 600, yes_no: bool = True) -> PreTrainedTokenizerFast:
    """Returns a tokenizer trained on a few words, with single tokens for yes and no."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [f"{TASK} <Instruct>: <Query>: <Document>:"] * 20
    if yes_no:
        lines += [f"{PREFIX} {SUFFIX}", "yes", "no"] * 20
    lines += [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
    backend.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=131072,
    )


def write(folder: Path, *, layers: int = 2, hidden: int = 64, rows: int = 0, seed: int = 0) -> Path:
    """Writes the model's folder; `rows` pads the vocabulary to that size."""
    small = tokenizer()
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=rows or len(small),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=hidden // 8 if hidden < 256 else 64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=small.eos_token_id,
        bos_token_id=small.eos_token_id,
        pad_token_id=small.pad_token_id,
        initializer_range=0.05,
    )
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    small.save_pretrained(folder)
    return folder
