"""Families of models against transformers written out, one text at a time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertGenerationConfig,
    FNetConfig,
    ReformerConfig,
)

from raydist.errors import ArtifactError, ConfigError
from raydist.models import backbone
from raydist.models.architecture import is_causal
from raydist.models.biencoder import BiEncoder
from raydist.models.crossencoder import CrossEncoderModel
from tests.models.zoo import TEXTS, TYPICAL, transformer, vectors


def worst(a, b) -> float:
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def rewrite(path: Path, **values: object) -> None:
    record = json.loads(path.read_text()) | values
    path.write_text(json.dumps(record))


def renamed(folder: Path, new) -> None:
    tensors = load_file(folder / "model.safetensors")
    saved = {n: t for name, t in tensors.items() if (n := new(name)) is not None}
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", TYPICAL)
def test_vectors_are_transformers_own_here_in_batches_and_in_sentence_transformers(
    families, tmp_path, family
):
    folder = families / family
    model = BiEncoder.load(folder, device="cpu")
    with torch.no_grad():
        expected = vectors(transformer(folder), folder, TEXTS, model.contract.pooling)
        together = model(model.pad(model.tokenize(TEXTS, "document")), "document")
    assert worst(model.encode_documents(TEXTS), expected) < 2e-6
    assert worst(together, expected) < 2e-6
    model.save(tmp_path / "m")
    theirs = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode(list(TEXTS))
    assert worst(theirs, expected) < 2e-6


@pytest.mark.parametrize("family", TYPICAL)
def test_a_score_does_not_depend_on_its_batch(families, family):
    if family == "t5":
        with pytest.raises(ConfigError, match="t5 scores with a decoder"):
            CrossEncoderModel.load(families / family, fresh_head=True)
        return
    model = CrossEncoderModel.load(families / family, fresh_head=True, device="cpu")
    pairs = model.tokenize([TEXTS[0]] * len(TEXTS), TEXTS)
    with torch.no_grad():
        alone = torch.cat([model(model.pad([pair])) for pair in pairs])
        assert worst(model(model.pad(pairs)), alone) < 2e-6


def test_an_architecture_is_causal_or_not_whatever_it_was_saved_for(families, tmp_path):
    causal = {f for f in TYPICAL if is_causal(AutoConfig.from_pretrained(families / f))}
    assert causal == {"gpt2", "qwen3", "mistral"}
    AutoModel.from_pretrained(families / "qwen3").save_pretrained(tmp_path / "q")
    AutoTokenizer.from_pretrained(families / "qwen3").save_pretrained(tmp_path / "q")
    model = BiEncoder.load(tmp_path / "q", device="cpu")  # architectures: Qwen3Model
    assert (model.contract.pooling, model.contract.padding_side) == ("last_token", "left")
    with pytest.raises(ConfigError, match=r"model\.pooling=cls: the first token of qwen3"):
        BiEncoder.load(tmp_path / "q", pooling="cls")


def test_a_wrapper_s_prefix_is_stripped_and_does_not_come_back(families, tmp_path):
    for family in ("bert", "qwen3"):
        folder = copied(families / family, tmp_path / family)
        renamed(folder, lambda name: f"module.{name}")
        model = BiEncoder.load(folder, device="cpu")
        same = BiEncoder.load(families / family, device="cpu")
        assert worst(model.encode_queries(TEXTS), same.encode_queries(TEXTS)) == 0
        model.save(tmp_path / "saved")
        assert not any("module." in n for n in load_file(tmp_path / "saved/model.safetensors"))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            lambda n: None if ".layer.1." in n else n,
            r"missing: (bert\.)?encoder\.layer\.1.* and 13 more",
        ),
        (lambda n: n.replace(".layer.1.", ".layer.7."), r"missing: .*; without a place"),
        (lambda n: n if "pooler" in n else f"other.{n}", r"missing: (bert\.)?embeddings\."),
    ],
)
def test_tensors_that_are_missing_or_have_no_place_are_named(families, tmp_path, new, message):
    folder = copied(families / "bert", tmp_path / "m")
    renamed(folder, new)
    with pytest.raises(ArtifactError, match=message):
        BiEncoder.load(folder)
    with pytest.raises(ArtifactError, match=message):
        CrossEncoderModel.load(folder, fresh_head=True)


def test_tensors_of_another_shape_are_named(families, tmp_path):
    folder = copied(families / "bert", tmp_path / "m")
    rewrite(folder / "config.json", vocab_size=999)
    with pytest.raises(ArtifactError, match=r"word_embeddings\.weight \[1000, 32\], expected \[99"):
        BiEncoder.load(folder)


def test_a_head_lacks_no_tensor_unless_it_is_to_be_trained(families, tmp_path, capsys):
    backbone._said.clear()
    model = CrossEncoderModel.load(families / "bert", fresh_head=True, device="cpu")
    assert "drawn at random, to be trained: classifier.bias, classifier.weight" in (
        capsys.readouterr().err
    )
    model.save(tmp_path)
    renamed(tmp_path, lambda name: None if name == "classifier.weight" else name)
    with pytest.raises(ArtifactError, match=r"missing: classifier\.weight"):
        CrossEncoderModel.load(tmp_path, fresh_head=True)


def test_attention_that_a_model_lacks_is_replaced_and_said_once(families, tmp_path, capsys):
    backbone._said.clear()
    for _ in range(2):
        model = BiEncoder.load(families / "mpnet", device="cpu")
    assert capsys.readouterr().err == "MPNetModel has no sdpa attention here; eager is used\n"
    model.save(tmp_path / "m")
    assert json.loads((tmp_path / "m/raydist.json").read_text())["attention"] == "eager"
    BiEncoder.load(families / "bert", attention="eager", device="cpu").save(tmp_path / "e")
    again = BiEncoder.load(tmp_path / "e", device="cpu")
    assert again.towers[0].config._attn_implementation == "eager"
    rewrite(tmp_path / "e/raydist.json", attention="flash_attention_2")  # from a GPU
    again = BiEncoder.load(tmp_path / "e", device="cpu")
    assert again.towers[0].config._attn_implementation == "sdpa"
    with pytest.raises(ConfigError, match="attention=flash_attention_2"):
        BiEncoder.load(families / "mpnet", attention="flash_attention_2")


@pytest.mark.parametrize("family", ["mistral", "gpt2"])
def test_the_end_of_a_text_is_appended_where_key_or_folder_say_so(families, tmp_path, family):
    folder = copied(families / family, tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = [tokenizer(text, truncation=True, max_length=15).input_ids for text in TEXTS]
    expected = [[*ids, tokenizer.eos_token_id] for ids in plain]
    model = BiEncoder.load(folder, append_eos=True, document_max_length=16, device="cpu")
    assert model.tokenize(TEXTS, "document") == expected
    rewrite(folder / "tokenizer_config.json", add_eos_token=True)
    model = BiEncoder.load(folder, document_max_length=16, device="cpu")
    assert model.contract.append_eos and model.tokenize(TEXTS, "document") == expected
    model.save(tmp_path / "saved")
    again = BiEncoder.load(tmp_path / "saved", device="cpu")
    side = again.contract.padding_side  # gpt2 is padded on the right by others
    assert again.contract == replace(model.contract, padding_side=side)
    assert again.tokenize(TEXTS, "document") == expected
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    ours = model.encode_documents(TEXTS)
    assert worst(theirs.encode_document(list(TEXTS)), ours) < 2e-6
    with pytest.raises(ConfigError, match=r"model\.append_eos=false"):
        BiEncoder.load(folder, append_eos=False)


@pytest.mark.parametrize("configured", [None, 1, 5])
def test_padding_is_the_network_s_own(families, tmp_path, configured):
    """Where the ids of config and tokenizer differ, no score follows from the padding."""
    folder = copied(families / "qwen3", tmp_path / "m")
    rewrite(folder / "config.json", pad_token_id=configured)
    model = CrossEncoderModel.load(folder, fresh_head=True, padding_side="right", device="cpu")
    assert model.transformer.config.pad_token_id == model.tokenizer.pad_token_id
    pairs = model.tokenize([TEXTS[0]] * len(TEXTS), TEXTS)
    with torch.no_grad():
        alone = torch.cat([model(model.pad([pair])) for pair in pairs])
        assert worst(model(model.pad(pairs)), alone) < 2e-6


def test_the_row_of_the_padding_token_gets_its_gradient_where_it_ends_a_text(families):
    folder = families / "qwen3"  # each text ends with <|endoftext|>, which is the padding, too
    plain = transformer(folder)
    weights = torch.linspace(-1, 1, 32)
    (vectors(plain, folder, TEXTS, "last_token") @ weights).sum().backward()
    expected = plain.embed_tokens.weight.grad
    model = BiEncoder.load(folder, dropout=0.0, device="cpu").train()
    inputs = model.pad(model.tokenize(TEXTS, "document"))
    (model(inputs, "document") @ weights).sum().backward()
    gradient = model.towers[0].embed_tokens.weight.grad
    assert expected[model.tokenizer.pad_token_id].norm() > 0
    assert worst(gradient, expected) < 1e-5 * float(expected.abs().max())


def test_dropout_is_off_whatever_a_family_calls_it(families):
    for family in ("t5", "xlnet", "deberta"):
        model = BiEncoder.load(families / family, dropout=0.0, device="cpu").train()
        inputs = model.pad(model.tokenize(TEXTS, "document"))
        assert worst(model(inputs).detach(), model(inputs).detach()) == 0


def test_gradient_checkpointing_that_a_family_lacks_is_refused(families):
    with pytest.raises(ConfigError, match=r"gradient_checkpointing: MPNetModel does not"):
        BiEncoder.load(families / "mpnet", gradient_checkpointing=True)


def test_code_of_a_folder_runs_only_by_the_key(families, tmp_path):
    folder = copied(families / "bert", tmp_path / "m")
    (folder / "own.py").write_text(
        "from transformers import BertConfig, BertModel\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own_bert'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    rewrite(
        folder / "config.json",
        model_type="own_bert",
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
    )
    with pytest.raises(ConfigError, match=r"needs code of its own.*trust_remote_code=true"):
        BiEncoder.load(folder)
    model = BiEncoder.load(folder, trust_remote_code=True, device="cpu")
    plain = BiEncoder.load(families / "bert", device="cpu")
    assert worst(model.encode_queries(TEXTS), plain.encode_queries(TEXTS)) == 0


def written(config, tokenizer: Path, folder: Path) -> Path:
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # so that differences show
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def test_a_model_that_reads_padding_is_refused(families, tmp_path):
    config = FNetConfig(vocab_size=1000, hidden_size=16, num_hidden_layers=1, intermediate_size=16)
    folder = written(config, families / "bert", tmp_path)
    message = r"fnet gives a text another output in another batch \(by .*does not leave padding out"
    with pytest.raises(ConfigError, match=message):
        BiEncoder.load(folder, device="cpu")
    with pytest.raises(ConfigError, match=message):
        CrossEncoderModel.load(folder, fresh_head=True, device="cpu")


def test_a_family_without_a_scoring_head_or_of_another_width_is_refused(families, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertGenerationConfig(vocab_size=1000, intermediate_size=16, **sizes)
    folder = written(config, families / "bert", tmp_path / "plain")
    with pytest.raises(ConfigError, match="transformers has no scoring head for bert-generation"):
        CrossEncoderModel.load(folder, fresh_head=True, device="cpu")
    assert BiEncoder.load(folder, device="cpu").encode_queries(TEXTS).shape == (4, 16)
    config = ReformerConfig(
        vocab_size=1000,
        hidden_size=16,
        num_attention_heads=2,
        attention_head_size=8,
        attn_layers=["local"],
        local_attn_chunk_length=16,
        feed_forward_size=16,
        axial_pos_embds=False,
        max_position_embeddings=128,
        is_decoder=False,
        pad_token_id=0,
    )
    folder = written(config, families / "bert", tmp_path / "wide")
    with pytest.raises(ConfigError, match="reformer gives"):
        BiEncoder.load(folder, device="cpu")
