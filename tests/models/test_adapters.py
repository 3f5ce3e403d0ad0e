"""Adapters: trained with all that is fresh, saved small, exported and loaded with their base."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from raydist.errors import ArtifactError, ConfigError
from raydist.exporting.hub import export_model
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.spec import Lora
from raydist.training.engine import TorchEngine
from tests.models.zoo import build

TEXTS = ["the vector of a query", "an index", "a"]


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(["deberta-v2"], tmp_path_factory.mktemp("families")) / "deberta-v2"


def worst(a, b) -> float:
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


def disturb(model: torch.nn.Module) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def test_a_fresh_pooler_and_head_are_trained_beside_the_adapters(deberta):
    model = CrossEncoderModel.load(deberta, fresh_head=True, lora=Lora(r=4), device="cpu")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    others = {name.split("modules_to_save.default.")[-1] for name in trained if "lora_" not in name}
    kinds = {name.split(".modules_to_save")[0].split(".")[-1] for name in trained} - {"default"}
    assert {"pooler", "classifier"} <= kinds and {"weight", "bias"} <= {
        name.rpartition(".")[2] for name in others
    }


def test_a_state_of_adapters_holds_no_frozen_weights(tiny_bert, tmp_path):
    model = BiEncoder.load(tiny_bert, pooling="mean", lora=Lora(r=2), device="cpu")
    engine = TorchEngine(model)
    disturb(model)
    engine.save(tmp_path)
    state = torch.load(tmp_path / "engine.pt", weights_only=True)["module"]
    assert all("lora_" in name for name in state)
    fresh = BiEncoder.load(tiny_bert, pooling="mean", lora=Lora(r=2), device="cpu")
    TorchEngine(fresh).load(tmp_path)
    assert worst(fresh.encode_queries(TEXTS), model.encode_queries(TEXTS)) == 0
    other = BiEncoder.load(tiny_bert, pooling="mean", device="cpu")
    with pytest.raises(ArtifactError, match="another model's state"):
        TorchEngine(other).load(tmp_path)


@pytest.mark.parametrize("kind", ["biencoder", "crossencoder"])
def test_adapters_are_exported_alone_and_loaded_with_their_base(tiny_bert, tmp_path, kind):
    model: BiEncoder | CrossEncoderModel
    if kind == "biencoder":
        model = BiEncoder.load(tiny_bert, pooling="mean", lora=Lora(r=2), device="cpu")
    else:
        model = CrossEncoderModel.load(tiny_bert, fresh_head=True, lora=Lora(r=2), device="cpu")
    disturb(model)
    merged = model.eval().merged()
    merged.save(tmp_path / "trained")
    model.save_adapters(tmp_path / "trained")
    export_model(tmp_path / "trained", tmp_path / "out", adapter=True)
    assert not list((tmp_path / "out").glob("model*.safetensors"))
    sizes = [f.stat().st_size for f in (tmp_path / "out").glob("*.safetensors")]
    assert sum(sizes) < (tmp_path / "trained/model.safetensors").stat().st_size / 2
    if isinstance(model, BiEncoder):
        again = BiEncoder.load(tmp_path / "out", device="cpu")
        assert worst(again.encode_queries(TEXTS), model.encode_queries(TEXTS)) < 1e-5
    else:
        scorer = CrossEncoderModel.load(tmp_path / "out", device="cpu")
        inputs = model.pad(model.tokenize([TEXTS[0]] * 3, TEXTS))
        with torch.no_grad():
            assert worst(scorer(inputs), model(inputs)) < 1e-5
    merged.save(tmp_path / "plain")
    with pytest.raises(ConfigError, match=r"adapter=true: .* has no adapters"):
        export_model(tmp_path / "plain", tmp_path / "other", adapter=True)


def test_a_folder_of_adapters_from_elsewhere_is_a_model(tiny_bert, tmp_path):
    base = AutoModel.from_pretrained(tiny_bert)
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, config).eval()
    adapted.save_pretrained(str(tmp_path / "a"))
    inputs = AutoTokenizer.from_pretrained(tiny_bert)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = adapted(**inputs).last_hidden_state[0].mean(0)
    model = BiEncoder.load(tmp_path / "a", pooling="mean", device="cpu")
    assert worst(model.encode_queries(TEXTS[:1])[0], expected) < 2e-6
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert all("pooler" in name for name in frozen)  # it may be trained on
    weights = load_file(tmp_path / "a/adapter_model.safetensors")
    save_file(dict(list(weights.items())[1:]), tmp_path / "a/adapter_model.safetensors")
    with pytest.raises(ArtifactError, match="its adapters do not fit their base"):
        BiEncoder.load(tmp_path / "a")
