"""A model from scratch: a WordPiece vocabulary trained on texts, and a small random BERT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit
from tokenizers.trainers import WordPieceTrainer
from transformers import BertConfig, BertModel, BertTokenizerFast

from raydist.errors import ConfigError
from raydist.models.backbone import save_transformer
from raydist.models.quiet import quiet

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ALPHABET = 1000


def create(
    texts: Iterable[str],
    folder: str | Path,
    *,
    layers: int = 2,
    hidden: int = 128,
    heads: int = 2,
    vocab: int = 8192,
    max_length: int = 512,
    seed: int = 0,
) -> Path:
    """Writes a Hugging Face folder with a trained tokenizer and a random encoder; returns it.

    The same texts, sizes and seed give the same bytes of vocabulary and weights.

    Args:
        texts: read once, streamed; the vocabulary comes from them alone.
        folder: created if missing.
        layers: transformer layers.
        hidden: width; a multiple of `heads`. The inner layer is four times as wide.
        heads: attention heads.
        vocab: most WordPiece entries, the five special ones included; never fewer than characters.
        max_length: positions the model has.
        seed: of the weights.
    """
    if hidden % heads:
        raise ConfigError(f"model.scratch.hidden={hidden}: not a multiple of heads={heads}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = BertTokenizerFast(
        vocab=_vocabulary(texts, vocab), do_lower_case=True, model_max_length=max_length
    )
    with quiet():
        tokenizer.save_pretrained(str(folder))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=max_length,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config)
    save_transformer(model, folder)
    return folder


def _vocabulary(texts: Iterable[str], size: int) -> dict[str, int]:
    """Returns a trained WordPiece vocabulary.

    The trainer numbers word-inner characters in the order of a randomly seeded hash map, and later
    ties follow the numbers. Here they are numbered beforehand, as if they were special tokens, so
    that the same words always give the same vocabulary.
    """
    normalize = BertNormalizer(lowercase=True).normalize_str
    split = BertPreTokenizer().pre_tokenize_str
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in split(normalize(text)))
    frequency: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            frequency[character] += count
    alphabet = {c for c, _ in sorted(frequency.items(), key=lambda kv: (-kv[1], kv[0]))[:_ALPHABET]}
    usable = sorted(word for word in words if alphabet.issuperset(word))
    inner = {character for word in usable for character in word[1:]}
    numbered = [*_SPECIAL, *sorted(alphabet), *(f"##{c}" for c in sorted(inner))]
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    trainer = WordPieceTrainer(
        vocab_size=max(size, len(numbered)),
        min_frequency=2,
        special_tokens=numbered,
        show_progress=False,
    )
    tokenizer.train_from_iterator((f"{word} " * words[word] for word in usable), trainer)
    return dict(sorted(tokenizer.get_vocab().items(), key=lambda kv: kv[1]))
