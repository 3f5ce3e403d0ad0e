"""Cross-encoders without padding: the rows of a batch laid end to end.

Linear layers see only real tokens; of the last layer, the first tokens alone are computed, for the
head reads no other. On a CPU this is faster than padding even when rows are sorted by length. The
encoders below are those whose layers hand keyword arguments through to the attention function, and
have the parts of BERT's.

Shapes: n rows, T tokens of all rows together, H heads, D dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raydist.models.packed_attention import Edges, attend
from raydist.models.packing import packed_rows, sent
from raydist.reranking.rows import Row

# Position of a row's first token: these number positions from the padding id on.
_OFFSET = frozenset({"roberta", "xlm-roberta", "camembert"})
_FAMILY = _OFFSET | {"bert", "electra"}


def can_pack(model: nn.Module) -> bool:
    """Returns whether `packed_logits` knows this sequence classifier's architecture."""
    config: Any = model.config
    return (
        config.model_type in _FAMILY
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and not config.is_decoder
    )


@dataclass(frozen=True, slots=True)
class PackedPairs:
    """Rows end to end on a device: what the embeddings read, and where each row begins."""

    embedded: dict[str, Tensor]
    starts_n: Tensor
    edges: Edges


def collate(model: Any, rows: Sequence[Row]) -> PackedPairs:
    """Returns rows laid end to end, on the model's device.

    Args:
        model: a sequence classifier that `can_pack`.
        rows: token ids with their segments; equally long rows should be neighbours.
    """
    config, device = model.config, model.device
    inputs = packed_rows([row.tokens for row in rows])
    positions_1T, edges = inputs["positions"], inputs["edges"]
    types_1T = torch.zeros_like(positions_1T)
    if getattr(config, "type_vocab_size", 1) > 1:
        segments = torch.tensor([row.segment for row in rows])
        types_1T[0] = positions_1T[0] >= segments.repeat_interleave(edges.diff())
    first = config.pad_token_id + 1 if config.model_type in _OFFSET else 0
    embedded = {
        "input_ids": inputs["input_ids"],
        "token_type_ids": types_1T,
        "position_ids": positions_1T + first,
    }
    return PackedPairs(
        {name: sent(tensor, device) for name, tensor in embedded.items()},
        sent(edges[:-1].long(), device),
        Edges(sent(edges, device), int(inputs["longest"])),
    )


def packed_logits(model: Any, rows: PackedPairs) -> Tensor:
    """Returns the logits [n, labels] of rows given without padding.

    Args:
        model: a sequence classifier that `can_pack`, whose attention takes packed rows.
        rows: collated for it.
    """
    base = model.base_model
    hidden = base.embeddings(**rows.embedded)
    if hasattr(base, "embeddings_project"):
        hidden = base.embeddings_project(hidden)
    *layers, last = base.encoder.layer
    for layer in layers:
        hidden = layer(hidden, **rows.edges.options())
    heads_n1D = _last_layer(last, hidden, rows)[0][:, None]
    if getattr(base, "pooler", None) is not None:
        return model.classifier(model.dropout(base.pooler(heads_n1D)))  # type: ignore[no-any-return]
    return model.classifier(heads_n1D)  # type: ignore[no-any-return]


def _last_layer(layer: Any, hidden_1TD: Tensor, rows: PackedPairs) -> Tensor:
    """Returns the last layer's output for the rows' first tokens, [1, n, hidden].

    Of the other tokens, only keys and values are needed.
    """
    attention = layer.attention.self
    first_1nD = hidden_1TD[:, rows.starts_n]

    def heads(values_1TD: Tensor) -> Tensor:
        return values_1TD.view(values_1TD.shape[1], -1, attention.attention_head_size)

    q_nHD = heads(attention.query(first_1nD))
    k_THD, v_THD = heads(attention.key(hidden_1TD)), heads(attention.value(hidden_1TD))
    single = Edges(torch.arange(len(q_nHD) + 1, dtype=torch.int32, device=q_nHD.device), 1)
    mixed_nHD = attend(q_nHD, k_THD, v_THD, single, rows.edges, scaling=attention.scaling)
    after_1nD = layer.attention.output(mixed_nHD.flatten(1)[None], first_1nD)
    return layer.output(layer.intermediate(after_1nD), after_1nD)  # type: ignore[no-any-return]
