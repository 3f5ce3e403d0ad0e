from __future__ import annotations

from pathlib import Path

import torch

from raydist.reranking.prefix import PrefixCache
from raydist.reranking.qwen3 import Qwen3Reranker
from raydist.reranking.spec import Qwen3Spec
from tests.reranking import small_qwen3


def test_prefixes_are_kept_by_their_number_and_their_tokens(tmp_path: Path) -> None:
    reranker = Qwen3Reranker(
        Qwen3Spec(model=str(small_qwen3.write(tmp_path)), max_length=256, device="cpu")
    )
    cache = PrefixCache(reranker.scorer.model.base_model, size=3, tokens=100)

    def misses(*prefixes: tuple[int, ...]) -> int:
        before = cache.misses
        with torch.inference_mode():
            for prefix in prefixes:
                assert cache.layers(prefix)[0][0].shape[2] == len(prefix)
        return cache.misses - before

    short = [(number,) * 10 for number in range(1, 5)]
    assert misses(*short[:3]) == 3 and misses(*short[:3]) == 0
    assert misses(short[3]) == 1 and misses(*short[1:]) == 0 and misses(short[0]) == 1
    long, longer = (7,) * 90, (8,) * 120
    assert misses(long, short[0]) == 1 and misses(long) == 0  # one short one is left beside it
    assert misses(longer) == 1 and misses(longer) == 0  # the newest is kept, however long
    assert misses(long, short[0]) == 2
