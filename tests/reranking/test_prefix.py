from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch

from raydist.models.packed_attention import use_packed_attention
from raydist.reranking import packed_decoder, packed_model
from raydist.reranking.prefix import Layers, Prefix, PrefixCache, compute_padded
from raydist.reranking.rows import Row
from tests.reranking import small_qwen3


def numbered(prefixes: Sequence[Prefix]) -> list[Layers]:
    """Returns layers that say whose they are."""
    return [[(torch.full((len(prefix), 1, 1), prefix[0]),) * 2] for prefix in prefixes]


def test_prefixes_are_kept_by_their_number_and_their_tokens() -> None:
    cache = PrefixCache(numbered, size=3, tokens=100)

    def misses(*prefixes: Prefix) -> int:
        before = cache.misses
        for prefix in prefixes:
            ((keys, _),) = cache.layers_of([prefix])[prefix]
            assert keys.flatten().tolist() == list(prefix)
        return cache.misses - before

    short = [(number,) * 10 for number in range(1, 5)]
    assert misses(*short[:3]) == 3 and misses(*short[:3]) == 0
    assert misses(short[3]) == 1 and misses(*short[1:]) == 0 and misses(short[0]) == 1
    long, longer = (7,) * 90, (8,) * 120
    assert misses(long, short[0]) == 1 and misses(long) == 0  # one short one is left beside it
    assert misses(longer) == 1 and misses(longer) == 0  # the newest is kept, however long
    assert misses(long, short[0]) == 2


def test_missing_prefixes_are_computed_together_within_the_tokens_of_a_pass() -> None:
    passes: list[list[int]] = []

    def compute(prefixes: Sequence[Prefix]) -> list[Layers]:
        passes.append([len(prefix) for prefix in prefixes])
        return numbered(prefixes)

    cache = PrefixCache(compute, size=2, pass_tokens=10)
    wanted = [(1,) * 4, (), (2,) * 3, (3,) * 30, (2,) * 3, (4,) * 5]
    layers = cache.layers_of(wanted)
    assert passes == [[3, 4], [5], [30]] and cache.passes == 3
    assert list(layers) == [(1,) * 4, (2,) * 3, (3,) * 30, (4,) * 5]  # more than are kept
    assert all(keys[0] == prefix[0] for prefix, ((keys, _),) in layers.items())
    cache.layers_of(wanted)
    assert passes[3:] == [[3, 4]]  # the last two were kept


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    from transformers import Qwen3ForCausalLM

    folder = small_qwen3.write(tmp_path_factory.mktemp("qwen3"))
    return Qwen3ForCausalLM.from_pretrained(folder).eval().base_model


@torch.inference_mode()
def test_rows_after_prefixes_reach_a_gpu_s_attention_without_masks(
    decoder: torch.nn.Module,
) -> None:
    """On torch's meta device: nothing is read from it, and attention refuses masks."""
    model = copy.deepcopy(decoder).to(torch.bfloat16).to("meta")
    use_packed_attention(model)
    rows = [Row([1, 2, 3], prefix=(4, 5)), Row([6], prefix=(7,)), Row([8, 9])]
    layers = packed_model.prefix_layers(model, [(4, 5), (7,)])
    batch = packed_model.collate(rows, torch.device("meta"))
    assert batch.keys.longest == 5
    hidden = packed_model.packed_output(
        model, batch, dict(zip(batch.prefixes, layers, strict=True))
    ).last_hidden_state
    assert hidden.shape == (1, 6, 64) and hidden.dtype == torch.bfloat16


@torch.inference_mode()
def test_prefixes_computed_together_have_the_keys_and_values_of_each_alone(
    decoder: torch.nn.Module,
) -> None:
    prefixes = [(5, 9, 7), (8,), tuple(range(10, 90)), (6, 6, 6)]
    alone = [compute_padded(decoder, [prefix])[0] for prefix in prefixes]
    ways = {
        "padded": compute_padded(decoder, prefixes),
        "on a CPU": packed_decoder.prefix_layers(decoder, prefixes),
    }
    restore = use_packed_attention(decoder)
    ways["packed"] = packed_model.prefix_layers(decoder, prefixes)
    restore()
    for together in ways.values():
        for one, other in zip(together, alone, strict=True):
            for (keys, values), (expected_keys, expected_values) in zip(one, other, strict=True):
                torch.testing.assert_close(keys, expected_keys, rtol=2e-6, atol=2e-6)
                torch.testing.assert_close(values, expected_values, rtol=2e-6, atol=2e-6)
