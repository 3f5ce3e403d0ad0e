"""Weights by a formula, so that a recorded model need not be kept.

`python pylate_weights.py OUT`, in an environment with pylate 1.6.0, writes `tests/golden/pylate`:
the JSON files of a model as PyLate saves it, and its scores.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

WORDS = ("river", "stone", "lamp", "garden", "winter", "bread", "mirror", "candle", "forest")
QUERIES = ("stone lamp", "a winter garden?", "bread, mirror and candle")
DOCUMENTS = ("river; stone, lamp.", "garden winter bread", "mirror! candle. forest " * 4, "stone")


def fill(module: Any) -> None:
    """Sets all parameters by their names and places."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            name = name.removeprefix("auto_model.").removeprefix("model.")
            places = torch.arange(parameter.numel(), dtype=torch.float64)
            values = torch.sin(places * 0.731 + sum(map(ord, name))) * 0.4
            scale = 1.0 if "LayerNorm.weight" in name else 0.0
            parameter.copy_((scale + values).reshape(parameter.shape).float())


def main(out: Path) -> None:
    from pylate import models, scores
    from sentence_transformers.models import Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    with tempfile.TemporaryDirectory() as scratch:
        base, saved = Path(scratch, "base"), Path(scratch, "saved")
        base.mkdir()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        vocabulary = [*special, *WORDS, "a", "and", *".,;?!"]
        (base / "vocab.txt").write_text("\n".join(vocabulary))
        BertTokenizerFast(str(base / "vocab.txt")).save_pretrained(base)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=40,
        )
        BertModel(config, add_pooling_layer=False).save_pretrained(base)
        dense = models.Dense(in_features=16, out_features=8, bias=False)
        model = models.ColBERT(
            modules=[Transformer(str(base)), dense],
            query_length=12,
            document_length=20,
            device="cpu",
        )
        fill(model[0])
        fill(model[1])
        model.save(str(saved))
        queries = model.encode(list(QUERIES), is_query=True, convert_to_tensor=True)
        documents = model.encode(list(DOCUMENTS), is_query=False, convert_to_tensor=True)
        values = [
            [float(scores.colbert_scores(q[None], d[None])[0, 0]) for d in documents]
            for q in queries
        ]
        shutil.rmtree(out, ignore_errors=True)
        for path in sorted(saved.rglob("*.json")):
            target = out / path.relative_to(saved)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(json.loads(path.read_text()), indent=1) + "\n")
        (out / "scores.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
