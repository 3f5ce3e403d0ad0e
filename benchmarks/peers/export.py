"""Writes a model's folder in ONNX, in the environment `onnx`.

    python export.py TASK SOURCE TARGET MAX_LENGTH

TARGET/plain    the folder with `model.onnx` as torch exports it beside the weights
TARGET/fused    with onnxruntime's fused attention, normalisation and activation
TARGET/int8     the fused graph, its matrix products quantised (weights once, activations by row)

Each has the tokenizer. Some programs cut texts at what `tokenizer_config.json` says, others at the
configuration's positions (`fused` and `int8`, which have no weights to contradict it).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from transformers import AutoModel, AutoModelForSequenceClassification

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export(task: str, source: Path, target: Path, max_length: int) -> None:
    kind = AutoModel if task == "embed" else AutoModelForSequenceClassification
    model = kind.from_pretrained(source, attn_implementation="eager").eval()
    plain, fused, small = (target / form for form in ("plain", "fused", "int8"))
    shutil.copytree(source, plain)
    _limit(plain / "tokenizer_config.json", "model_max_length", max_length)
    output = "last_hidden_state" if task == "embed" else "logits"
    _to_onnx(model, plain / "model.onnx", output)
    for form in (fused, small):
        shutil.copytree(plain, form, ignore=shutil.ignore_patterns("*.onnx", "*.safetensors"))
        _limit(form / "config.json", "max_position_embeddings", max_length)
    size: Any = model.config
    graph = optimizer.optimize_model(
        str(plain / "model.onnx"),
        model_type="bert",
        num_heads=size.num_attention_heads,
        hidden_size=size.hidden_size,
        opt_level=1,
    )
    graph.save_model_to_file(str(fused / "model.onnx"))
    quantize_dynamic(
        fused / "model.onnx",
        small / "model.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    counts = graph.get_fused_operator_statistics()
    print(json.dumps({name: count for name, count in counts.items() if count}))


class _Positional(torch.nn.Module):
    """A model that takes its inputs by position, as the exporter gives them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Any, mask: Any, types: Any) -> Any:
        return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)[0]


def _to_onnx(model: Any, file: Path, output: str) -> None:
    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {name: {0: "batch", 1: "length"} for name in _INPUTS}
    axes[output] = {0: "batch", 1: "length"} if output == "last_hidden_state" else {0: "batch"}

    with torch.no_grad():
        torch.onnx.export(
            _Positional(model),
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            str(file),
            input_names=list(_INPUTS),
            output_names=[output],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    onnx.checker.check_model(str(file))


def _limit(file: Path, key: str, max_length: int) -> None:
    """Makes a file state the comparison's length."""
    content = json.loads(file.read_text())
    content[key] = max_length
    file.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
