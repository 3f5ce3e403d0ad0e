"""Fingerprints: what changes a result changes them, nothing else does; values never change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raydist.fingerprints import model_fingerprint, value_fingerprint


def test_values_stay_what_manifests_hold(tmp_path: Path) -> None:
    assert value_fingerprint({"b": [1, 0.5, None], "a": "é"}) == "2ef20ce4430e67a3"
    lines = b"".join(b'{"id": "%d", "text": "text %d"}\n' % (i, i) for i in range(300))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(lines * 1800)
    assert model_fingerprint(tmp_path) == "73597f2c004367be"


def test_the_order_of_keys_does_not_matter() -> None:
    assert value_fingerprint({"a": 1, "b": 2}) == value_fingerprint({"b": 2, "a": 1})


@pytest.fixture
def model(tiny_bert, tmp_path):
    return shutil.copytree(tiny_bert, tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["manifest.json", ".job.json", "settings.json", ".cache/huggingface/x.json"]
)
def test_notes_about_a_model_are_not_the_model(model, name):
    before = model_fingerprint(model)
    (model / name).parent.mkdir(parents=True, exist_ok=True)
    (model / name).write_text("{}")
    assert model_fingerprint(model) == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_another_configuration_tokenizer_or_weight_is_another_model(model, name):
    before = model_fingerprint(model)
    (model / name).write_bytes((model / name).read_bytes()[:-1] + b" ")
    assert model_fingerprint(model) != before


def test_a_module_in_a_folder_of_its_own_counts(model):
    before = model_fingerprint(model)
    (model / "2_Dense").mkdir()
    (model / "2_Dense/config.json").write_text("{}")
    assert model_fingerprint(model) != before
