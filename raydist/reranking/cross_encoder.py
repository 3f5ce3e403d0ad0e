"""CrossEncoder: rerank with a sequence-classification model that reads query and document together.

Loads raydist, sentence-transformers and plain Hugging Face folders; scores are those of
sentence-transformers' CrossEncoder, also where a text spells a special token: it is read as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from raydist.errors import ConfigError
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.packed_attention import VARLEN
from raydist.models.texts.clip import Clipper
from raydist.models.trial import TRIED
from raydist.reranking.chat_prompt import ChatPrompt
from raydist.reranking.classifier import choose
from raydist.reranking.neural import NeuralReranker, load_settings
from raydist.reranking.rows import EncodedDocuments, Options, Row, TooLong, fit
from raydist.reranking.spec import CrossEncoderSpec


class CrossEncoderScorer:
    """A cross-encoder behind the scorer engine.

    Args:
        model: the cross-encoder; in evaluation mode while it scores.
        attention: as `raydist.reranking.classifier.choose` takes it.
        packed: run without padding where architecture and device allow it; the model can then be
            used by this scorer alone.
        name: the model's name in messages.
    """

    def __init__(
        self,
        model: CrossEncoderModel,
        *,
        attention: str = "sdpa",
        packed: bool = True,
        name: str = "",
    ) -> None:
        self.model = model
        self.name = name or model.source
        self.sigmoid = model.contract.activation == "sigmoid"
        backend = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        self._chat = None
        if model.chat:
            own = model.tokenizer, Tokenizer.from_str(backend.to_str())
            length = model.contract.document_max_length
            self._chat = ChatPrompt(Path(model.source), *own, length, share=False)
        self._tokenizer, self._clip = backend, Clipper(backend)
        self._before, self._between, self._after, self._segment = _template(backend)
        if "token_type_ids" not in model.tokenizer.model_input_names:
            self._segment = None  # as in transformers: all tokens are of type 0
        special = len(self._before) + len(self._between) + len(self._after)
        self.max_length = model.contract.document_max_length
        self.room = self.max_length - special
        self.query_cap = model.contract.query_max_length
        encoded = self.encode("a", TRIED, Options())
        rows = [row for pieces in encoded.rows for row in pieces]
        self.classifier = choose(model, attention, rows, packed=packed)
        self.packed = self.classifier.packed

    def encode(self, query: str, documents: Sequence[str], options: Options) -> EncodedDocuments:
        """Returns the rows of (query, document): the query and each document tokenised once.

        Raises:
            TooLong: a text does not fit and `options.truncation` is "error".
        """
        if self._chat is not None:
            return self._chat.encode(query, documents, options)
        if options.instruction:
            raise ConfigError(
                f"instruction={options.instruction!r}: {self.name} takes no instruction"
            )
        query = self.model.contract.query_instruction + query
        whole = self._tokenizer.encode(query, add_special_tokens=False).ids
        if read := options.tokens_read(max(self.room, len(whole))):
            documents = self._clip(documents, read)
        encodings = self._tokenizer.encode_batch_fast(list(documents), add_special_tokens=False)
        capped = whole[: self.query_cap] if self.query_cap else whole
        rows: list[list[Row]] = []
        truncated: list[bool] = []
        for index, encoding in enumerate(encodings):
            ids = encoding.ids
            query_part = self._cut_query(capped, len(ids), options)
            cut = len(query_part) < len(whole)
            if cut and options.truncation == "error":
                raise TooLong("query", len(whole), len(query_part))
            pieces, lost = fit(ids, self.room - len(query_part), index, options)
            rows.append([self._row(query_part, piece) for piece in pieces])
            truncated.append(lost or cut)
        return EncodedDocuments(rows, truncated, sum(map(len, chain.from_iterable(rows))))

    def collate(self, rows: Sequence[Row]) -> Any:
        """Returns rows as the model takes them, on its device."""
        return self.classifier.collate(rows)

    @torch.inference_mode()
    def compute(self, batch: Any) -> np.ndarray:
        """Returns the logits of collated rows, float32 [n]."""
        return self.classifier.logits(batch).cpu().numpy()

    def forward(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns the rows' logits, float32 [n]."""
        return self.compute(self.collate(rows))

    def _cut_query(self, query: list[int], document: int, options: Options) -> list[int]:
        """Returns the query's tokens that fit beside a document of so many tokens.

        The longer of the two is cut. A query of at most half the room is never cut; where pieces of
        a document are scored, the query gets at most half.
        """
        half = self.room // 2
        if self.query_cap or len(query) <= half:
            return query[: self.room - 1]
        if options.truncation == "chunk_max":
            return query[:half]
        document = min(document, options.max_tokens_per_document or document)
        if len(query) <= document:
            return query[:half]
        return query[: max(self.room - half, self.room - document)]

    def _row(self, query_part: Sequence[int], document: Sequence[int]) -> Row:
        tokens = [*self._before, *query_part, *self._between, *document, *self._after]
        segment = len(tokens)
        if self._segment is not None:
            segment = len(self._before) + len(query_part) + self._segment
        return Row(tokens, segment)


class CrossEncoder(NeuralReranker[CrossEncoderScorer]):
    """Reranks with a cross-encoder.

    Args:
        spec: the model, its lengths, and how it runs.
        packed: run without padding where architecture and device allow it.
        raw: scores are logits, without the sigmoid.
    """

    def __init__(self, spec: CrossEncoderSpec, *, packed: bool = True, raw: bool = False) -> None:
        settings = load_settings(spec)
        if spec.attention == VARLEN:
            settings["attention"] = "sdpa"  # until it is tried
        model = CrossEncoderModel.load(
            spec.model,
            max_length=spec.max_length or None,
            query_max_length=spec.query_max_length or None,
            replace_contract=bool(spec.max_length or spec.query_max_length),
            **settings,
        )
        if model.transformer.dtype != torch.float32 or model.autocast is not None:
            keep_head_in_float32(model.transformer)
        scorer = CrossEncoderScorer(model, attention=spec.attention, packed=packed, name=spec.model)
        super().__init__(spec, scorer, model, raw=raw)


class _Float32(nn.Module):
    """A module in float32, whatever its inputs are and the surroundings cast to."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.float()

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """Returns what the module gives for its inputs in float32."""
        with torch.autocast(inputs[0].device.type, enabled=False):
            return self.inner(*(x.float() if torch.is_tensor(x) else x for x in inputs), **keywords)


def keep_head_in_float32(classifier: Any) -> None:
    """Computes a classifier's head in float32: bfloat16 has 8 bits, so that many logits tie."""
    for name, child in list(classifier.named_children()):
        if name != classifier.base_model_prefix and any(True for _ in child.parameters()):
            setattr(classifier, name, _Float32(child))


def _template(tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int], int | None]:
    """Returns the special tokens before, between and after a pair, and where segment 1 begins.

    The last is counted from the end of the query, and None if all tokens are of segment 0.
    """
    probe: Any = tokenizer.encode("a", "b")
    owners = probe.sequence_ids
    first = owners.index(0)
    last = len(owners) - 1 - owners[::-1].index(1)
    query = [position for position, owner in enumerate(owners) if owner == 0]
    document = [position for position, owner in enumerate(owners) if owner == 1]
    between = probe.ids[query[-1] + 1 : document[0]]
    segment = None
    if 1 in probe.type_ids:
        segment = probe.type_ids.index(1) - query[-1] - 1
    return probe.ids[:first], between, probe.ids[last + 1 :], segment
