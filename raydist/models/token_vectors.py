"""What a multi-vector model does with the vectors of tokens (late interaction).

A query's score for a document is MaxSim: the sum over the query's vectors of each one's largest dot
product with a vector of the document (Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832).
Rows of zeros are no vectors: padding, and what a document leaves out.

Shapes: B texts, T tokens, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from raydist.models.folders.contract import Contract
from raydist.models.folders.multivector import expansion_id, skipped_ids
from raydist.models.texts.tokens import Role, TextTokenizer
from raydist.models.token_pooling import pooled


class ExpandingTokenizer(TextTokenizer):
    """Fills short texts up with a token."""

    def __init__(self, tokenizer: Any, *, filler: int, least: int, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self._expansion, self._least = filler, least

    def __call__(
        self, texts: Sequence[str], instruction: str | None = None, *, first: int = 0
    ) -> list[list[int]]:
        """Returns the token ids of each text, `least` at least."""
        rows = super().__call__(texts, instruction, first=first)
        return [row + [self._expansion] * (self._least - len(row)) for row in rows]

    def spans(self, text: str) -> list[tuple[int, int] | None]:
        """Returns where each token lies in a text, None for those that it does not have."""
        spans = super().spans(text)
        return spans + [None] * (self._least - len(spans))


class TokenVectors:
    """Which tokens are seen, and which have a vector, by a contract."""

    def __init__(self, contract: Contract, tokenizer: Any) -> None:
        self._contract = contract
        self._filler = expansion_id(contract, tokenizer) if contract.expansion else None
        self._skipped = torch.tensor(skipped_ids(contract, tokenizer), dtype=torch.int64)
        # Then the last token of a text is no expansion, though it is the same token.
        self._own_end = TextTokenizer(tokenizer, max_length=8)(["a"])[0][-1] == self._filler

    @property
    def apart(self) -> bool:
        """Whether each vector is one token's."""
        return self._contract.token_pooling <= 1

    def kept(self, ids: Sequence[int], role: Role) -> list[int]:
        """Returns which tokens of a text have a vector."""
        skipped = set(self._skipped.tolist()) if role != "query" else set()
        return [place for place, token in enumerate(ids) if token not in skipped]

    def tokenizer(self, tokenizer: Any) -> TextTokenizer:
        """Returns the tokenizer of queries."""
        length, instruction = self._contract.query_max_length, self._contract.query_instruction
        if self._filler is None:
            return TextTokenizer(tokenizer, max_length=length, instruction=instruction)
        return ExpandingTokenizer(
            tokenizer,
            filler=self._filler,
            least=self._contract.expansion,
            max_length=length,
            instruction=instruction,
        )

    def seen(self, inputs: Mapping[str, Tensor], role: Role) -> Mapping[str, Tensor]:
        """Returns the inputs with the mask of what the transformer's own tokens see."""
        if role != "query" or self._filler is None or self._contract.expansion_attends:
            return inputs
        mask_BT = _mask(inputs)
        filled_BT = ((inputs["input_ids"] == self._filler) | (mask_BT == 0)).to(torch.int32)
        filled_BT = filled_BT.flip(1).cumprod(1).flip(1).bool()
        if self._own_end:
            filled_BT = filled_BT & F.pad(filled_BT, (1, 0))[:, :-1]
        return {**inputs, "attention_mask": mask_BT * ~filled_BT}

    def scored(self, vectors_BTD: Tensor, inputs: Mapping[str, Tensor], role: Role) -> Tensor:
        """Returns the vectors that are scored, zeros in place of others."""
        mask_BT = _mask(inputs).bool()
        if role != "query" and len(self._skipped):
            skipped = self._skipped.to(vectors_BTD.device)
            mask_BT = mask_BT & ~torch.isin(inputs["input_ids"], skipped)
        if role != "query" and self._contract.token_pooling > 1:
            return pooled(vectors_BTD, mask_BT, self._contract)
        return vectors_BTD * mask_BT.unsqueeze(-1)


def _mask(inputs: Mapping[str, Tensor]) -> Tensor:
    mask_BT = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"]) if mask_BT is None else mask_BT
