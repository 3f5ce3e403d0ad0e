"""A model's fingerprint: what changes its output changes it, nothing else does."""

from __future__ import annotations

import shutil

import pytest

from raydist.models.fingerprint import model_fingerprint


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
