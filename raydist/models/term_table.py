"""Queries without a transformer: a weight for each token, read from a table.

sentence-transformers' SparseStaticEmbedding. A query is the set of its tokens; a learned table is
the inference-free retrieval of OpenSearch's models, and a table of ones is SPLADE-doc.

Shapes: B texts, T tokens, V terms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raydist.errors import ArtifactError, ConfigError, DataError
from raydist.models.folders.sentence_transformers import read_json

_WEIGHTS = "model.safetensors"


class TermTable(nn.Module):
    """The weights [V] of tokens, learned or fixed."""

    def __init__(self, weight_V: Tensor, *, frozen: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_V.float(), requires_grad=not frozen)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the weights [B, V] of texts, padded or laid end to end."""
        ids = inputs["input_ids"]
        edges, mask_BT = inputs.get("edges"), inputs.get("attention_mask")
        if edges is not None:
            texts = torch.arange(len(edges) - 1, device=ids.device)
            row_t, id_t = texts.repeat_interleave(edges.long().diff()), ids[0]
        elif mask_BT is not None:
            row_t, at_t = mask_BT.nonzero(as_tuple=True)
            id_t = ids[row_t, at_t]
        else:
            texts = torch.arange(len(ids), device=ids.device)
            row_t, id_t = texts.repeat_interleave(ids.shape[1]), ids.flatten()
        rows = len(edges) - 1 if edges is not None else len(ids)
        present_BV = self.weight.new_zeros((rows, len(self.weight)))
        present_BV[row_t, id_t] = 1
        return present_BV * self.weight

    def save(self, folder: Path) -> None:
        """Writes the weights as sentence-transformers does."""
        folder.mkdir(exist_ok=True)
        record = {"frozen": not self.weight.requires_grad}
        (folder / "config.json").write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
        weight = self.weight.detach().cpu().contiguous()
        save_file({"weight": weight}, folder / _WEIGHTS, metadata={"format": "pt"})


def load_table(folder: Path, tokenizer: Any) -> Tensor:
    """Returns the weights [V] in a folder of sentence-transformers.

    Raises:
        ArtifactError: they are missing, or something else.
    """
    config = read_json(folder / "config.json")
    if config.get("path"):
        return read_weights(folder / str(config["path"]), tokenizer)
    if not (folder / _WEIGHTS).is_file():
        raise ArtifactError(f"{folder}: no {_WEIGHTS}; weights in other formats are not read")
    weights = load_file(folder / _WEIGHTS)
    if set(weights) != {"weight"} or weights["weight"].dim() != 1:
        raise ArtifactError(f"{folder / _WEIGHTS}: expected one weight for each token")
    weight_V: Tensor = weights["weight"]
    return weight_V


def read_weights(file: Path, tokenizer: Any) -> Tensor:
    """Returns the weights [V] of a JSON file {token: weight}; tokens that it lacks weigh 0.

    Raises:
        DataError: there is no such file, or it holds something else.
        ConfigError: it has tokens that the tokenizer lacks.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise DataError(f"{file}: no such file") from None
    except ValueError as error:
        raise DataError(f"{file}: not readable as JSON ({error})") from None
    if not isinstance(record, dict) or not all(isinstance(v, int | float) for v in record.values()):
        raise DataError(f"{file}: expected an object of tokens and their weights")
    vocabulary = tokenizer.get_vocab()
    if foreign := [token for token in record if token not in vocabulary]:
        raise ConfigError(
            f"{file}: has {len(foreign):,} tokens that the model's vocabulary lacks, such as "
            f"{foreign[0]!r}: it belongs to another vocabulary"
        )
    weight_V = torch.zeros(len(vocabulary))
    for token, value in record.items():
        weight_V[vocabulary[token]] = value
    return weight_V
