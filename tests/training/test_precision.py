from __future__ import annotations

import pytest
import torch

from raydist.errors import ConfigError
from raydist.models.spec import BiEncoderSettings
from raydist.training.precision import allow_tf32, check_attention, decided, words
from raydist.training.spec import Resources

MODEL = BiEncoderSettings(path="m")
GPUS = Resources(workers=2, gpus_per_worker=1)
HERE = Resources()


def test_what_was_left_open_is_bfloat16_on_a_gpu_that_has_it(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    settings = BiEncoderSettings.of
    assert decided(MODEL, cpu).autocast is None
    assert decided(MODEL, cuda).autocast == "bfloat16"
    assert decided(settings("m", autocast="float32"), cuda).autocast == "float32"
    assert decided(settings("m", dtype="bfloat16"), cuda).autocast is None
    allow_tf32(settings("m", tf32=True), cpu)
    assert not asked
    for model in (settings("m", tf32=True), MODEL):
        allow_tf32(model, cuda)
    assert asked == ["high", "highest"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert decided(MODEL, cuda).autocast is None


def test_a_plan_says_how_precisely_it_computes(monkeypatch):
    settings = BiEncoderSettings.of
    assert words(MODEL, HERE) == []
    assert words(settings("m", tf32=True), HERE) == []
    assert words(settings("m", autocast="bfloat16"), HERE) == ["bf16 autocast"]
    assert words(MODEL, GPUS) == ["bf16 autocast on GPUs that have it"]
    assert words(settings("m", autocast="float32", tf32=True), GPUS) == ["TF32"]
    assert words(settings("m", autocast="bfloat16"), GPUS) == ["bf16 autocast"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert words(MODEL, HERE) == ["bf16 autocast"]


@pytest.mark.parametrize(
    ("attention", "autocast", "on", "message"),
    [
        ("flash_attention_2", None, HERE, "needs a GPU"),
        ("flash_attention_2", None, Resources(workers=2), "needs a GPU"),
        ("flash_attention_3", "float32", GPUS, "computes in half precision"),
        ("varlen", "float32", GPUS, "computes in half precision"),
        ("varlen", "float32", HERE, ""),
        ("flash_attention_3", None, GPUS, ""),
        ("sdpa", "float32", GPUS, ""),
    ],
)
def test_attention_that_cannot_be_computed_is_refused_before_anything(
    attention, autocast, on, message
):
    model = BiEncoderSettings.of("m", attention=attention, autocast=autocast)
    if message:
        with pytest.raises(ConfigError, match=message):
            check_attention(model, on)
    else:
        check_attention(model, on)
