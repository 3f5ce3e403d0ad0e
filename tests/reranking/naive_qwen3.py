"""The reference: one left-padded batch, full logits, two-way log-softmax (the model card's way)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from raydist.reranking.spec import PREFIX, SUFFIX, TASK


def load(folder: Path) -> tuple[Any, Any]:
    """Returns tokenizer and model."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    return tokenizer, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def score(
    loaded: tuple[Any, Any], batch: list[tuple[str, list[str]]], max_length: int = 8192
) -> list[list[float]]:
    """Returns P(yes) of every document."""
    tokenizer, model = loaded
    prefix = tokenizer.encode(PREFIX, add_special_tokens=False)
    suffix = tokenizer.encode(SUFFIX, add_special_tokens=False)
    bodies = [
        f"<Instruct>: {TASK}\n<Query>: {query}\n<Document>: {document}"
        for query, documents in batch
        for document in documents
    ]
    room = max_length - len(prefix) - len(suffix)
    rows = tokenizer(bodies, truncation=True, max_length=room, add_special_tokens=False)
    ids = [prefix + row + suffix for row in rows["input_ids"]]
    inputs = tokenizer.pad({"input_ids": ids}, padding=True, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    with torch.no_grad():
        last = model(**inputs).logits[:, -1, :]
    flat = torch.log_softmax(torch.stack([last[:, no], last[:, yes]], 1), 1)[:, 1].exp().tolist()
    scores = []
    for _, documents in batch:
        scores.append(flat[: len(documents)])
        flat = flat[len(documents) :]
    return scores
