from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from raydist.rerank.request import NotBegun
from raydist.serving.errors import ServiceError
from raydist.serving.served import ServedEmbedder, ServedReranker
from tests.serving.local import LetterCounts


def test_a_request_that_is_not_begun_in_time_is_told_when_to_come_again() -> None:
    def submit(*_: Any, patience_s: float, **__: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(NotBegun(f"not within {patience_s}"))
        return future

    reranker: Any = SimpleNamespace(engine=SimpleNamespace(submit=submit))
    request = {"query": "q", "documents": ["a"], "patience_s": 14.6}
    with pytest.raises(ServiceError) as caught:
        asyncio.run(ServedReranker(reranker).score(request))
    assert caught.value.status == 503
    assert caught.value.headers["Retry-After"] == "15"


def test_too_many_dimensions_are_refused_before_anything_is_encoded() -> None:
    class Counting(LetterCounts):
        seen = 0

        def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
            self.seen += len(texts)
            return super().encode_queries(texts)

    encoder = Counting()
    served = ServedEmbedder(encoder)
    served.warm()
    warmed = encoder.seen
    with pytest.raises(ServiceError, match="dimensions=28: the model gives 27"):
        asyncio.run(served.embed({"texts": ["a"], "role": "document", "dimensions": 28}))
    assert encoder.seen == warmed
    kept = asyncio.run(served.embed({"texts": ["a"], "role": "document", "dimensions": 27}))
    assert kept["dimension"] == 27 and encoder.seen == warmed + 1
    served.close()
