"""Folders that are no models, or damaged: refused in one line, whatever transformers raises."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raydist.errors import RaydistError
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from tests.training.small import checkpoint


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("good") / "model")


def config(**values: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        record = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in record.items() if v != "absent"}))

    return edit


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def tokenizer_only(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder: Path) -> None:
    for path in [*folder.glob("tokenizer*"), *folder.glob("*vocab*"), *folder.glob("*special*")]:
        path.unlink()


def adapters_only(content: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tokenizer_only(folder)
        (folder / "adapter_config.json").write_text(content)

    return edit


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def not_a_number(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, path, {"format": "pt"})


def few_rows(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name] = weights[name][:20].contiguous()
    save_file(weights, path, {"format": "pt"})
    config(vocab_size=20)(folder)


FOLDERS = {
    "empty": (tokenizer_only, "no config.json of a model"),
    "adapters of no base": (adapters_only("{}"), "names no base_model_name_or_path"),
    "adapters as a list": (adapters_only("[1]"), "names no base_model_name_or_path"),
    "adapters of a lost base": (
        adapters_only('{"base_model_name_or_path": "/no/such/base"}'),
        "/no/such/base: no such folder",
    ),
    "not JSON": (text("config.json", "{x"), "its config.json is not JSON"),
    "a list": (text("config.json", "[1]"), "names no model_type"),
    "a config of timm": (config(model_type="absent"), "names no model_type"),
    "an unknown architecture": (config(model_type="frob"), "does not recognize"),
    "several architectures": (config(model_type=["bert"]), "cannot read its config.json"),
    "a width that is a word": (config(hidden_size="wide"), "'hidden_size' expected int, got str"),
    "an unknown type": (config(dtype="float7"), "cannot read its config.json"),
    "an unknown activation": (config(hidden_act="frob"), "cannot open its bert"),
    "an image model": (config(model_type="vit"), "model"),
    "weights cut short": (cut, "cannot open its bert"),
    "weights that are a pointer": (text("model.safetensors", "version 1\n"), "cannot open its"),
    "weights that are not finite": (not_a_number, "numbers that are not finite"),
    "no tokenizer": (no_tokenizer, "has no tokenizer.json, nor another vocabulary"),
    "heads that do not divide the width": (
        config(num_attention_heads=5),
        "cannot open its bert .* multiple of the number of attention heads",
    ),
    "a tokenizer of another model": (few_rows, "do not belong together"),
    "modules without numbers": (text("modules.json", '[{"name": "0"}]'), "expected a list of mod"),
}


@pytest.mark.parametrize("cls", [BiEncoder, CrossEncoderModel])
@pytest.mark.parametrize("what", FOLDERS)
def test_what_is_no_model_is_refused_in_one_line(cls, what, good, tmp_path):
    edit, message = FOLDERS[what]
    folder = shutil.copytree(good, tmp_path / "m")
    edit(folder)
    options = {"fresh_head": True} if cls is CrossEncoderModel else {}
    if what == "modules without numbers" and options:
        return  # the transformer alone is of use
    with pytest.raises(RaydistError, match=message) as error:
        cls.load(folder, device="cpu", **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
