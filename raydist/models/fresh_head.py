"""How a language-model head starts where a transformer has none: as likeness to the embeddings.

A transformer's last vector of a token still resembles the token's own embedding, and those of words
like it. So a head that hands its input through ranks by shared and related words before any
training, where one that is drawn at random ranks by nothing. Its bias hides what is not alike, and
leaves a text a few hundred terms of tens of thousands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

ALIKE = 0.25
"""The cosine of a token's vector and a term's embedding above which the term has a weight, where
the embedding is of average length; longer ones, of rarer words, need less."""


@torch.no_grad()
def start_as_likeness(model: Any, fresh: Sequence[str]) -> bool:
    """Sets a fresh head in place; returns False, and changes nothing, where it cannot be done.

    Args:
        model: a language model whose last layer is the embeddings of its input.
        fresh: names of its tensors that were drawn at random.
    """
    decoder, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if decoder.weight is not embeddings.weight:
        return False
    own = {name: tensor for name, tensor in model.named_parameters() if name in fresh}
    inner = [tensor for tensor in own.values() if tensor.ndim == 2]
    if any(tensor.shape[0] != tensor.shape[1] for tensor in inner):
        return False
    for tensor in inner:
        torch.nn.init.eye_(tensor)
    if decoder.bias is not None and any(tensor is decoder.bias for tensor in own.values()):
        # What reaches the last layer is normalised to a mean square of 1.
        length = float(decoder.weight.norm(dim=1).mean())
        decoder.bias.fill_(-ALIKE * math.sqrt(decoder.weight.shape[1]) * length)
    return True
