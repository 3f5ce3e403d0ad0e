"""The matrix: families of models by what is done with them, against torch written out.

Texts go through transformers one at a time, without padding; a family is equal, or it is refused in
one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from raydist.errors import ArtifactError, ConfigError
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from raydist.models.spec import Lora
from raydist.reranking.cross_encoder import CrossEncoder
from raydist.reranking.spec import CrossEncoderSpec
from raydist.training.gradient_cache import represent, surrogates
from tests.models.further_zoo import FURTHER, build_further
from tests.models.zoo import ALL, TEXTS, build, transformer, vectors

pytestmark = pytest.mark.slow

QUERIES = ("flow of a wing", "heat", "the drag of slender bodies", "shock waves at a plate")
CPU = torch.device("cpu")
HEADLESS = ("clip_text", "cohere", "mamba", "recurrent_gemma", "xglm")
REFUSED = {
    "embed": {
        "bart": "is an encoder-decoder",
        "big_bird": "attention_type=block_sparse",
        "canine": "does not take a short text|does not compute in it",
        "funnel": "another output in another batch",
        "perceiver": "has no hidden_size",
        "recurrent_gemma": "keeps recurrent_states of a text",
    },
    "checkpointing": dict.fromkeys(
        ("albert", "ctrl", "funnel", "ibert", "mpnet", "squeezebert", "xlnet"), "does not support"
    ),
    "bf16": {"deberta": "does not compute in it"},
    "lora": dict.fromkeys(("ibert", "mamba", "squeezebert"), r"model\.lora: "),
    "distill": {
        **dict.fromkeys(HEADLESS, "transformers has no scoring head"),
        "bart": "scores with a decoder",
        "bert_decoder": "gives different texts one output",
        "canine": "another output in another batch",
        "t5": "scores with a decoder",
    },
}
"""What is refused of a family; what `embed` refuses, the others do, too, unless they say more."""
PARTLY_FLOAT32 = (
    *("bloom", "cohere", "deberta", "gemma", "gemma2", "gemma3_text", "jamba", "mamba", "mixtral"),
    *("phimoe", "xglm", "xlnet"),
)
"""Families that compute some of it in float32 whatever their weights are."""
NAMES = pytest.mark.parametrize("family", [*ALL, *FURTHER])


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build(ALL, tmp_path_factory.mktemp("families"))
    return build_further([*FURTHER], folder)


def refused(what: str, family: str) -> str:
    return REFUSED.get(what, {}).get(family) or REFUSED["embed"].get(family) or ""


def load(cls: Any, folder: Path, what: str, **options: Any) -> Any:
    """Returns the model with dropout off, None where it is refused as it should be."""
    if message := refused(what, folder.name):
        with pytest.raises((ArtifactError, ConfigError), match=message):
            cls.load(folder, dropout=0.0, device="cpu", **options)
        return None
    return cls.load(folder, dropout=0.0, device="cpu", **options).train()


def contrast(queries_BD: Tensor, documents_BD: Tensor) -> Tensor:
    logits_BB = F.normalize(queries_BD) @ F.normalize(documents_BD).T / 0.2
    return F.cross_entropy(logits_BB, torch.arange(len(logits_BB)))


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def assert_equal(
    ours: dict[str, Tensor], expected: dict[str, Tensor], bound: float, smallest: float = 1e-7
) -> None:
    scale = max(float(g.abs().max()) for g in expected.values())
    none = torch.zeros(())
    for name in ours.keys() | expected.keys():
        difference = ours.get(name, none) - expected.get(name, none)
        assert float(difference.abs().max()) <= bound * scale + smallest, name


def expected_step(
    folder: Path, pooling: str, dtype: torch.dtype = torch.float32
) -> tuple[float, dict[str, Tensor]]:
    plain = transformer(folder).to(dtype)
    for part in plain.modules():
        if isinstance(part, torch.nn.Embedding):
            part.padding_idx = None
    loss = contrast(*(vectors(plain, folder, texts, pooling) for texts in (QUERIES, TEXTS)))
    loss.backward()
    return float(loss.detach()), gradients(plain)


def inputs_of(model: BiEncoder) -> list[dict[str, Tensor]]:
    return [
        model.pad(model.tokenize(QUERIES, "query")),
        model.pad(model.tokenize(TEXTS, "document")),
    ]


@NAMES
def test_embedding_and_export(families, tmp_path, family):
    model = load(BiEncoder, families / family, "embed")
    if model is None:
        return
    with torch.no_grad():
        expected = vectors(
            transformer(families / family), families / family, TEXTS, model.contract.pooling
        )
    model.eval().save(tmp_path)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(list(TEXTS))
    bound = 1e-6 * max(2.0, float(expected.abs().max()))  # batches round large numbers, too
    for vectors_BD in (model.encode_documents(TEXTS), theirs):
        assert float((torch.as_tensor(vectors_BD) - expected).abs().max()) < bound


@pytest.mark.parametrize(
    "family", [name for name in (*ALL, *FURTHER) if name not in PARTLY_FLOAT32]
)
def test_a_step_in_float64(families, family):
    """Where gradients nearly cancel, float32 rounds them by more than 1e-5 of the largest one.

    LayoutLM's by 1.4e-5, those of ModernBERT's decoder by 1.6e-5; in float64 both by 4e-14.
    """
    model = load(BiEncoder, families / family, "step", dtype="float64")
    if model is None:
        return
    value, expected = expected_step(families / family, model.contract.pooling, torch.float64)
    loss = contrast(*(model(each) for each in inputs_of(model)))
    loss.backward()
    assert abs(float(loss.detach()) - value) < 1e-10
    assert_equal(gradients(model.towers[0]), expected, 1e-10, 1e-14)


@pytest.mark.parametrize("what", ["step", "cache", "checkpointing"])
@NAMES
def test_a_step(families, family, what):
    options = {"gradient_checkpointing": True} if what == "checkpointing" else {}
    model = load(BiEncoder, families / family, what, **options)
    if model is None:
        return
    value, expected = expected_step(families / family, model.contract.pooling)
    if what == "cache":
        parts = [represent(model, each, device=CPU, chunk_size=2) for each in inputs_of(model)]
        loss = contrast(*(part.rows for part in parts))
        loss.backward()
        for surrogate in surrogates(parts, CPU):
            surrogate.backward()
    else:
        loss = contrast(*(model(each) for each in inputs_of(model)))
        loss.backward()
    assert abs(float(loss.detach()) - value) < 1e-5
    assert_equal(gradients(model.towers[0]), expected, 1e-5)


@NAMES
def test_bfloat16(families, family):
    model = load(BiEncoder, families / family, "bf16", autocast="bfloat16")
    if model is None:
        return
    value, _ = expected_step(families / family, model.contract.pooling)
    with torch.no_grad():
        loss = contrast(*(model(each) for each in inputs_of(model)))
    assert abs(float(loss) - value) < 0.025 * value


@NAMES
def test_adapters(families, tmp_path, family):
    model = load(BiEncoder, families / family, "lora", lora=Lora(r=2, alpha=4))
    if model is None:
        return
    torch.manual_seed(4)
    folder = families / family
    plain = transformer(folder)
    layers = {
        name: part
        for name, part in model.towers[0].base_model.model.named_modules()
        if hasattr(part, "lora_B")
    }
    by_hand = all(hasattr(part, "weight") for part in layers.values())
    with torch.no_grad():
        for name, part in layers.items():
            a, b = part.lora_A["default"].weight, part.lora_B["default"].weight
            b.normal_(std=0.05)
            if by_hand:
                delta = 2.0 * b @ a
                weight = plain.get_submodule(name).weight
                weight.add_(delta.T if part.fan_in_fan_out else delta)
        if not by_hand:  # experts are one tensor
            model.merged().save(tmp_path)
            plain = transformer(tmp_path)
        expected = vectors(plain, folder, TEXTS, model.contract.pooling)
        together = model(inputs_of(model)[1], "document")
    assert float((together - expected).abs().max()) < 1e-5 * float(expected.abs().max())


@NAMES
def test_distilling_and_reranking(families, tmp_path, family):
    folder = families / family
    model = load(CrossEncoderModel, folder, "distill", fresh_head=True)
    if model is None:
        return
    model.save(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    for part in plain.modules():
        if isinstance(part, torch.nn.Embedding):
            part.padding_idx = None
    pairs = [tokenizer(QUERIES[0], text, return_tensors="pt") for text in TEXTS]
    expected = torch.cat([plain(**pair).logits[:, 0] for pair in pairs])
    target = torch.tensor([0.1, 0.6, 0.1, 0.2])
    F.cross_entropy(expected[None], target[None]).backward()
    logits = model(model.pad(model.tokenize([QUERIES[0]] * len(TEXTS), TEXTS)))
    F.cross_entropy(logits[None], target[None]).backward()
    assert float((logits - expected).detach().abs().max()) < 2e-6
    assert_equal(gradients(model.transformer), gradients(plain), 1e-5)
    reranker = CrossEncoder(CrossEncoderSpec(model=str(tmp_path / "m"), device="cpu"))
    scores = torch.tensor(reranker.score([(QUERIES[0], TEXTS)])[0])
    activated = expected.sigmoid() if model.contract.activation == "sigmoid" else expected
    assert float((scores - activated).detach().abs().max()) < 2e-6
