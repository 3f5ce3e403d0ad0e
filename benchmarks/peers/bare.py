"""What a runtime without a library around it needs: tokenising, batches by length, pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from protocol import Settings, Work
from tokenizers import Tokenizer

BATCH_TOKENS = 1024
"""Padding included; a CPU is fastest on batches that fit its caches."""

Forward = Callable[[dict[str, np.ndarray]], Any]
"""From padded inputs [n, L] to token vectors [n, L, D] or logits [n, 1]."""


def run_batches(settings: Settings, forward: Forward) -> Work:
    """Returns the work of a task with a forward pass."""
    tokenizer = Tokenizer.from_file(f"{settings.folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(settings.max_length)

    def work(query: str, texts: list[str]) -> np.ndarray:
        rerank = settings.task == "rerank"
        pairs: Any = [(query, text) for text in texts] if rerank else texts
        encodings = tokenizer.encode_batch(pairs)
        lengths = np.array([len(encoding.ids) for encoding in encodings])
        order = np.argsort(-lengths, kind="stable")
        values: np.ndarray | None = None
        start = 0
        while start < len(order):
            rows = order[start : start + max(1, BATCH_TOKENS // int(lengths[order[start]]))]
            start += len(rows)
            inputs = _padded([encodings[i] for i in rows])
            output = forward(inputs)
            part = output[:, 0] if rerank else _pooled(output, inputs["attention_mask"])
            if values is None:
                values = np.empty((len(texts), *part.shape[1:]), np.float32)
            values[rows] = part
        assert values is not None
        return 1 / (1 + np.exp(-values)) if rerank else values

    return work


def _padded(encodings: list[Any]) -> dict[str, np.ndarray]:
    shape = len(encodings), max(len(encoding.ids) for encoding in encodings)
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: np.zeros(shape, np.int64) for name in names}
    for row, encoding in enumerate(encodings):
        length = len(encoding.ids)
        inputs["input_ids"][row, :length] = encoding.ids
        inputs["attention_mask"][row, :length] = 1
        inputs["token_type_ids"][row, :length] = encoding.type_ids
    return inputs


def _pooled(tokens_nLD: np.ndarray, mask_nL: np.ndarray) -> np.ndarray:
    """Returns the normalised means [n, D] of the token vectors."""
    means = (mask_nL[:, None].astype(np.float32) @ tokens_nLD)[:, 0]
    return means / np.linalg.norm(means, axis=1, keepdims=True)
