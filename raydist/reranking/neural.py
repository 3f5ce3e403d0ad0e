"""What rerankers with a model share: where it is, how it is loaded, and the engine that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from torch import nn

from raydist.models.blocked import use_blocked_weights
from raydist.models.inference import fitting_tokens, most_tokens, pick_dtype, prepare_device
from raydist.models.trial import TRIED
from raydist.reranking.engine import Engine
from raydist.reranking.rows import Options, Row, Scorer
from raydist.reranking.spec import NeuralSpec

S = TypeVar("S", bound=Scorer)
_LONG = " ".join(TRIED) * 100


def load_settings(spec: NeuralSpec) -> dict[str, Any]:
    """Returns how a spec's model is loaded: device, precision, attention, trust in its code."""
    device = prepare_device(spec.device)
    return {
        "device": device,
        "dtype": pick_dtype(spec.dtype, device),
        "attention": spec.attention,
        "trust_remote_code": spec.trust_remote_code,
    }


class NeuralReranker(Generic[S]):
    """Reranks with a model behind the scorer engine; satisfies the `Reranker` protocol.

    Args:
        spec: how it runs.
        scorer: the model, its rows and their logits.
        model: its network, which is not trained any more.
        raw: scores are logits, without the sigmoid.
        batch_tokens: of a micro-batch; 0: what the spec says, or what suits the device.
    """

    def __init__(
        self,
        spec: NeuralSpec,
        scorer: S,
        model: nn.Module,
        *,
        raw: bool = False,
        batch_tokens: int = 0,
    ) -> None:
        use_blocked_weights(model)
        self.options = Options(spec.truncation, raw=raw)
        self.scorer = scorer
        budget = batch_tokens or spec.batch_tokens or _budget(scorer, model)
        self.engine = Engine(scorer, batch_tokens=budget, threads=spec.threads)

    def score(self, batch: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Returns one score per document, larger is better; lists may be ragged or empty."""
        return self.engine.score(batch, self.options)


def _budget(scorer: Scorer, model: nn.Module) -> int:
    """Returns a token budget that suits the device and fits its memory."""
    device = next(model.parameters()).device

    def run(tokens: int) -> None:
        (row,) = scorer.encode(TRIED[1], [_LONG], Options()).rows[0]
        cost = len(row) if scorer.packed else len(row) + len(row.prefix)
        rows = -(-tokens // cost)
        scorer.forward([Row(row.tokens, row.segment, row.prefix)] * rows)

    return fitting_tokens(run, device, most_tokens(device, packed=scorer.packed))
