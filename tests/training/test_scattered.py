"""ZeRO 3 writes a model shard by shard: the same weights, and never more than a shard at a time."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from raydist.models.biencoder import BiEncoder
from raydist.models.spec import Lora
from raydist.training.deepspeed import DeepSpeedEngine
from raydist.training.skeleton import from_bytes, to_bytes
from raydist.training.spec import DeepSpeed, Optim
from tests.models.zoo import build
from tests.training.small import checkpoint, encoder, reranker
from tests.training.spawn import spawn

SHARD = 90_000  # the embeddings have 81,536
CPU = torch.device("cpu")


def opened(kind: str, folder: Path) -> Any:
    torch.manual_seed(3)
    match kind:
        case "reranker":
            model: Any = reranker(folder, fresh_head=True, lora=Lora(r=2))
        case "adapters":
            model = encoder(folder, lora=Lora(r=2))
        case "t5":
            return BiEncoder.load(folder.parent / "t5", device="cpu")
        case _:
            model = encoder(folder)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def write(kinds: Sequence[str], rank: int, world: int, folder: Path) -> None:
    for kind in kinds:
        model = opened(kind, folder / "model")
        if rank:
            model = from_bytes(to_bytes(model))
        engine = DeepSpeedEngine(model, Optim(), DeepSpeed(zero=3), device=CPU, whole_below=0)
        scattered = engine.exported()
        scattered.shard = SHARD
        held: list[Any] = []
        most = 0
        gather = scattered.gather

        def counted(
            names: Sequence[str], gather: Any = gather, held: list[Any] = held
        ) -> list[torch.Tensor]:
            nonlocal most
            tensors: list[torch.Tensor] = gather(names)
            held += [weakref.ref(tensor.untyped_storage()) for tensor in tensors]
            living = [storage for ref in held if (storage := ref()) is not None]
            most = max(most, sum(storage.nbytes() for storage in living))
            return tensors

        scattered.gather = counted
        scattered.save(folder / kind, {"step": 3})
        if not rank:
            (folder / f"{kind}.most").write_text(str(most))


def assert_written(kind: str, folder: Path) -> None:
    opened(kind, folder / "model").merged().save(folder / "whole", settings={"step": 3})
    files = sorted((folder / kind).glob("model*.safetensors"))
    ours = {name: tensor for file in files for name, tensor in load_file(file).items()}
    expected = load_file(folder / "whole/model.safetensors")
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name
    sizes = {file.name: sum(t.nbytes for t in load_file(file).values()) for file in files}
    layer = sum(t.nbytes for name, t in expected.items() if "layer.0." in name)
    most = int((folder / f"{kind}.most").read_text())
    assert len(files) > 1
    if kind != "t5":  # whose embeddings are larger than a file
        assert max(sizes.values()) <= SHARD
        assert most <= SHARD + 1.1 * layer < sum(sizes.values())  # with adapters beside the layer
    index = json.loads((folder / kind / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(sizes.values())
    assert {(folder / kind / file).name for file in index["weight_map"].values()} == set(sizes)
    for name in ("config.json", "raydist.json", "tokenizer.json"):
        assert (folder / kind / name).read_text() == (folder / "whole" / name).read_text()
    assert not list((folder / kind).glob(".*"))


def test_a_model_is_written_shard_by_shard_with_its_adapters_merged(tmp_path: Path) -> None:
    checkpoint(tmp_path / "model")
    kinds = ["encoder", "adapters", "reranker"]
    spawn(partial(write, kinds), 2, tmp_path)
    for kind in kinds:
        assert_written(kind, tmp_path)
    adapter = load_file(tmp_path / "adapters/adapter/adapter_model.safetensors")
    trained = dict(opened("adapters", tmp_path / "model").named_parameters())
    for name, tensor in adapter.items():
        own = "towers.0." + name.replace(".weight", ".default.weight")
        assert torch.equal(tensor, trained[own]), name


@pytest.mark.slow
def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    build(["t5"], tmp_path)
    spawn(partial(write, ["t5"]), 2, tmp_path)
    assert_written("t5", tmp_path)
