"""How a causal language model answers: the tokens whose logits are the score, and their head.

A folder of sentence-transformers declares the tokens (its module LogitScore) and the activation; a
plain one answers yes or no, and the score is the probability of yes.

Shapes: n rows, T tokens, D hidden dimensions, A tokens that are answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydist.errors import ArtifactError
from raydist.models.folders.reranker import saved_activation
from raydist.models.folders.sentence_transformers import modules_of, read_json


@dataclass(frozen=True, slots=True)
class Answers:
    """The token of "relevant", that of "irrelevant", and what is done with their logits.

    Attributes:
        relevant: its logit is the score,
        irrelevant: less the logit of this one, if there is one.
        sigmoid: the sigmoid of that is the score.
    """

    relevant: int
    irrelevant: int | None
    sigmoid: bool = True

    @property
    def ids(self) -> list[int]:
        """The tokens, that of "relevant" first."""
        return [self.relevant] if self.irrelevant is None else [self.relevant, self.irrelevant]


def declared_answers(folder: Path, config: Any) -> Answers | None:
    """Returns the answers that a folder's LogitScore module declares, None where it has none.

    Raises:
        ArtifactError: modules that are none of a reranker's.
    """
    modules = modules_of(folder)
    kinds = [kind for kind, _ in modules]
    if len(kinds) < 2:
        return None
    if kinds != ["Transformer", "LogitScore"]:
        raise ArtifactError(
            f"{folder}/modules.json: {', '.join(kinds)}: expected Transformer and LogitScore"
        )
    file = modules[1][1] / "config.json"
    settings = read_json(file)
    if settings.get("module_input_name", "causal_logits") != "causal_logits":
        raise ArtifactError(
            f"{file}: module_input_name={settings['module_input_name']!r} is not supported"
        )
    relevant, irrelevant = settings.get("true_token_id"), settings.get("false_token_id")
    for token in (relevant, irrelevant):
        if token is not None and not (isinstance(token, int) and 0 <= token < config.vocab_size):
            raise ArtifactError(f"{file}: {token!r} is no token of the vocabulary")
    if relevant is None:
        raise ArtifactError(f"{file}: true_token_id is missing")
    return Answers(relevant, irrelevant, saved_activation(folder, config) == "sigmoid")


class AnswerHead(nn.Module):
    """The rows of a model's output matrix for the answers, in float32 whatever the model's type.

    It takes the place of the output matrix, so that the model's own forward does with their logits
    what it does with all (Granite divides them, Gemma 2 caps them), and the vocabulary's other
    logits are never computed.

    Attributes:
        last_n: the position of each row that is read, or in the one row of which all are parts; set
            before each forward.
    """

    def __init__(self, output: Any, answers: Answers) -> None:
        super().__init__()
        self.last_n = torch.zeros(0, dtype=torch.long)
        self.weight_AD = nn.Parameter(output.weight[answers.ids].detach().float())
        bias = getattr(output, "bias", None)
        self.bias_A = None if bias is None else nn.Parameter(bias[answers.ids].detach().float())

    def logits(self, hidden_nD: Tensor) -> Tensor:
        """Returns the answers' logits, float32 [n, A]."""
        return F.linear(hidden_nD.float(), self.weight_AD, self.bias_A)

    def forward(self, hidden_nTD: Tensor) -> Tensor:
        """Returns the answers' logits at the positions `last_n`, float32 [n, 1, A]."""
        rows = torch.arange(len(hidden_nTD), device=hidden_nTD.device)
        return self.logits(hidden_nTD[rows, self.last_n])[:, None]
