"""Answers with vectors, as bytes, in the forms of OpenAI, Cohere and TEI.

They are the service's largest answers: written off the event loop, a few rows at a time.

Shapes: n texts, D dimensions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np
import orjson

from raydist.serving.embed_schema import EmbedOrder
from raydist.serving.vectors import quantized, rows_as_json

_FEW = 1 << 14
"""Numbers that are written on the event loop: a thread would cost more."""


async def written(
    vectors_nD: np.ndarray, write: Callable[[np.ndarray], bytes], *, normalize: bool
) -> bytes:
    """Returns an answer's bytes.

    Args:
        vectors_nD: the model's.
        write: makes bytes of them.
        normalize: whether to scale them to unit length first.
    """

    def work() -> bytes:
        values_nD = np.asarray(vectors_nD, np.float32)
        if normalize:
            norms = np.linalg.norm(values_nD, axis=1, keepdims=True)
            values_nD = values_nD / np.maximum(norms, 1e-12)
        return write(values_nD)

    return work() if vectors_nD.size <= _FEW else await asyncio.to_thread(work)


def openai(vectors_nD: np.ndarray, *, order: EmbedOrder, model: str, tokens: int) -> bytes:
    """Returns OpenAI's list of embeddings, which Voyage, Jina and mixedbread share."""
    rows = _rows(quantized(vectors_nD, order.numbers[0]), packed=order.packed)
    data = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, row)
        for index, row in enumerate(rows)
    )
    rest = {"model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return b'{"object":"list","data":[%b],%b' % (data, orjson.dumps(rest)[1:])


def cohere(
    vectors_nD: np.ndarray,
    *,
    order: EmbedOrder,
    model: str,
    request_id: str,
    tokens: int,
    by_type: bool,
) -> bytes:
    """Returns Cohere's answer.

    Args:
        vectors_nD: float32.
        model: not in the answer.
        order: with the texts, which Cohere echoes.
        request_id: the answer's id.
        tokens: billed, as Cohere says.
        by_type: lists by kind of number (v2), or a single list (v1 without embedding_types).
    """
    lists = [(str(number), _list(quantized(vectors_nD, number))) for number in order.numbers]
    if order.packed:
        lists.append(("base64", _list(vectors_nD, packed=True)))
    embeddings = b",".join(b'"%b":%b' % (name.encode(), rows) for name, rows in lists)
    rest: dict[str, Any] = {
        "id": request_id,
        "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
        "texts": order.texts,
        "meta": {
            "api_version": {"version": "2" if by_type else "1"},
            "billed_units": {"input_tokens": tokens},
        },
    }
    value = b"{%b}" % embeddings if by_type else lists[0][1]
    return b'{"embeddings":%b,%b' % (value, orjson.dumps(rest)[1:])


def tei(vectors_nD: np.ndarray, *, model: str, tokens: int) -> bytes:
    """Returns TEI's bare list of vectors, without the model's name and the tokens."""
    return _list(vectors_nD)


def tei_sparse(vectors_nD: np.ndarray, *, model: str, tokens: int) -> bytes:
    """Returns TEI's list of the terms of each text, by number, with their weights."""
    rows = []
    for vector_D in vectors_nD:
        terms = np.flatnonzero(vector_D)
        pairs = zip(terms.tolist(), vector_D[terms].tolist())
        rows.append([{"index": term, "value": weight} for term, weight in pairs])
    return orjson.dumps(rows)


def _list(vectors_nD: np.ndarray, *, packed: bool = False) -> bytes:
    return b"[%b]" % b",".join(_rows(vectors_nD, packed=packed))


def _rows(vectors_nD: np.ndarray, *, packed: bool) -> Iterable[bytes]:
    return chain.from_iterable(rows_as_json(vectors_nD, packed=packed))
