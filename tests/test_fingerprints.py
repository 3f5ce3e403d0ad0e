"""Fingerprints: what changes a result changes them, nothing else does; values never change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raydist.fingerprints import file_fingerprint, model_fingerprint, value_fingerprint

LINES = b"".join(b'{"id": "%d", "text": "text %d"}\n' % (i, i) for i in range(300))


def test_values_stay_what_manifests_hold(tmp_path: Path) -> None:
    assert value_fingerprint({"b": [1, 0.5, None], "a": "é"}) == "2ef20ce4430e67a3"
    (tmp_path / "c.jsonl").write_bytes(LINES)
    (tmp_path / "d.jsonl").write_bytes(LINES * 1800)
    assert file_fingerprint(tmp_path / "c.jsonl") == "f2e010dc18c86cd6a40a3b1cd78164be"
    assert file_fingerprint([tmp_path, "irds:some/set"]) == "9dbfe89e3219c5ca9c5fb10537b9ac73"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(LINES * 1800)
    assert model_fingerprint(tmp_path) == "73597f2c004367be"


def test_the_order_of_keys_does_not_matter() -> None:
    assert value_fingerprint({"a": 1, "b": 2}) == value_fingerprint({"b": 2, "a": 1})


def test_a_fingerprint_depends_on_bytes_and_names_not_on_folders(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    a, b = tmp_path / "c.jsonl", tmp_path / "x" / "c.jsonl"
    a.write_bytes(LINES)
    b.write_bytes(LINES)
    assert file_fingerprint(a) == file_fingerprint(b)
    b.write_bytes(LINES.replace(b"text 7", b"text 8"))
    assert file_fingerprint(a) != file_fingerprint(b)
    big = LINES * 1800
    assert len(big) > 16 << 20
    a.write_bytes(big)
    b.write_bytes(big)
    assert file_fingerprint(a) == file_fingerprint(b)
    b.write_bytes(big[:-3] + b"!}\n")
    assert file_fingerprint(a) != file_fingerprint(b)


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
