"""What a bi-encoder makes of its transformer's token vectors, by the kind of the model.

Shapes: B texts, T tokens (padded), D the width of a token's vector, V terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from raydist.errors import ConfigError
from raydist.models.architecture import width
from raydist.models.folders.contract import Contract
from raydist.models.packed_attention import VARLEN
from raydist.models.packing import packed_options, pool_packed, unpadded
from raydist.models.pooling import pool
from raydist.models.spec import Pooling
from raydist.models.term_pooling import TermPooling, pools_blocks


class Head(Protocol):
    """Turns a transformer's output into a representation of each text."""

    @property
    def output(self) -> str:
        """The transformer's output that the head reads, by its name in transformers."""
        ...

    def width(self, tower: Any) -> int:
        """Returns the length of a representation before projections."""
        ...

    def padded(self, tower: Any, hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Returns the representations [B, ...] of padded texts."""
        ...

    def packed(self, tower: Any, hidden_TD: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the representations [B, ...] of texts that lie end to end."""
        ...


@dataclass(frozen=True, slots=True)
class VectorHead:
    """One vector a text, pooled of its tokens'."""

    pooling: Pooling
    output: str = "last_hidden_state"

    def width(self, tower: Any) -> int:
        """Returns the length of a vector before projections."""
        return width(tower.config)

    def padded(self, tower: Any, hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Returns the vectors [B, D] of padded texts."""
        return pool(hidden_BTD, mask_BT, self.pooling)

    def packed(self, tower: Any, hidden_TD: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the vectors [B, D] of texts that lie end to end."""
        return pool_packed(hidden_TD, inputs, self.pooling)


@dataclass(frozen=True, slots=True)
class TermHead:
    """A weight for each term of the vocabulary, by the language model's head.

    Attributes:
        pooling: of the logits at the tokens.
        blocks: whether the logits are computed by blocks of terms; else the transformer gives them
            all, because it does more with them than to return them.
    """

    pooling: TermPooling
    blocks: bool = True
    output: str = "logits"

    def width(self, tower: Any) -> int:
        """Returns the number of terms."""
        return int(tower.get_output_embeddings().weight.shape[0])

    def padded(self, tower: Any, hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Returns the weights [B, V] of padded texts."""
        if not self.blocks:
            return self.pooling.of_logits(hidden_BTD, mask_BT)
        weights: Tensor = tower.get_output_embeddings()(hidden_BTD, self.pooling, mask_BT)
        return weights

    def packed(self, tower: Any, hidden_TD: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the weights [B, V] of texts that lie end to end."""
        lengths = inputs["edges"].long().diff()
        parts = torch.split(hidden_TD, lengths.tolist())
        longest = torch.arange(int(lengths.max()), device=hidden_TD.device)
        return self.padded(tower, pad_sequence(list(parts), True), longest < lengths[:, None])


@dataclass(frozen=True, slots=True)
class TokenHead:
    """A vector for each token."""

    output: str = "last_hidden_state"

    def width(self, tower: Any) -> int:
        """Returns the length of a vector before projections."""
        return width(tower.config)

    def padded(self, tower: Any, hidden_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Returns the vectors [B, T, D] of padded texts."""
        return hidden_BTD.to(torch.promote_types(hidden_BTD.dtype, torch.float32))

    def packed(self, tower: Any, hidden_TD: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Raises ConfigError: vectors of tokens come of padded texts."""
        raise ConfigError("attention=varlen: multi-vector models take padded texts; leave it out")


def make_head(contract: Contract, towers: list[nn.Module]) -> Head:
    """Returns the head of a model; makes its transformers end where the head begins."""
    if contract.kind == "multivector":
        return TokenHead()
    if contract.kind != "sparse":
        return VectorHead(contract.pooling)
    pooling = TermPooling("sum" if contract.pooling == "sum" else "max", contract.saturation)
    return TermHead(pooling, all(_ends_with_decoder(tower) for tower in towers))


@torch.no_grad()
def _ends_with_decoder(tower: Any) -> bool:
    """Returns whether a language model's logits are what its last layer gives, and nothing else.

    If so, that layer pools its logits itself from now on. Some models divide or cap their logits.
    """
    decoder = tower.get_output_embeddings()
    inputs: dict[str, Any] = {"input_ids": torch.arange(3)[None]}
    if tower.config._attn_implementation == VARLEN:
        inputs = packed_options(tower, unpadded(inputs))
    device = next(tower.parameters()).device
    inputs = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
    expected = tower(**inputs).logits
    before = type(decoder)
    if not pools_blocks(decoder):
        return False
    logits = nn.functional.linear(tower(**inputs).logits, decoder.weight, decoder.bias)
    if logits.shape == expected.shape and torch.allclose(logits, expected, rtol=1e-3, atol=1e-3):
        return True
    decoder.__class__ = before
    return False
