"""Tiny models of many families from the tool beside the checkout, and transformers written out."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForTextEncoding, AutoTokenizer

TOOL = Path(__file__).resolve().parents[3] / "shared/tools/tiny_models.py"
ALL = (
    *("albert", "bert", "big_bird", "bloom", "deberta", "deberta-v2", "distilbert", "electra"),
    *("gemma", "gemma2", "gpt2", "gpt_neox", "llama", "mistral", "modernbert", "mpnet"),
    *("nomic_bert", "phi3", "qwen2", "qwen3", "qwen3_plain_model", "roberta"),
    *("roberta-prelayernorm", "t5", "xlm-roberta", "xlnet"),
)
TYPICAL = ("bert", "mpnet", "deberta", "gpt2", "qwen3", "mistral", "t5", "xlnet")
SOURCES = ("gemma", "llama", "roberta")
"""Families whose tokenizers further ones have, beside typical ones."""
TEXTS = (
    "flow of a wing",
    "boundary layer heat transfer in the supersonic flow over a flat plate at pressure " * 2,
    "a",
    "the lift and the drag of slender wings at mach number two",
)


def build(names: Sequence[str], folder: Path) -> Path:
    """Writes tiny models of these families into a folder."""
    if not TOOL.is_file():
        pytest.skip("no tools beside the checkout")
    before = sys.argv
    sys.argv = [str(TOOL), str(folder), *names]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runpy.run_path(str(TOOL), run_name="__main__")
    finally:
        sys.argv = before
    return folder


def transformer(folder: Path) -> Any:
    """Returns the folder's transformer as transformers opens it by itself."""
    auto = AutoModelForTextEncoding if folder.name == "t5" else AutoModel
    return auto.from_pretrained(str(folder)).eval()


def pooled(hidden_TD: torch.Tensor, pooling: str) -> torch.Tensor:
    """Returns the vector of a text without padding."""
    match pooling:
        case "cls":
            return hidden_TD[0]
        case "last_token":
            return hidden_TD[-1]
        case _:
            return hidden_TD.mean(0)


def vectors(model: Any, folder: Path, texts: Sequence[str], pooling: str) -> torch.Tensor:
    """Returns the texts' vectors, one text at a time: no padding, no masks of ours."""
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    length = min(tokenizer.model_max_length, 128)
    rows = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)
        rows.append(pooled(model(**inputs).last_hidden_state[0], pooling))
    return torch.stack(rows)
