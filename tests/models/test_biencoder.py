"""Bi-encoders against sentence-transformers and against their own saved folders."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from raydist.errors import ArtifactError, ConfigError, DataError
from raydist.models import backbone
from raydist.models.biencoder import BiEncoder
from raydist.models.encode import EncodeStats
from raydist.models.spec import Lora

TEXTS = [
    "the vector of a query",
    "an index",
    "",
    "retrieval of documents by a model " * 40,
    "the corpus, said the passage: answer & score!",
]


def st_model(folder, **options):
    return SentenceTransformer(str(folder), device="cpu", **options)


def difference(a, b) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


def test_a_sentence_transformers_folder_is_honoured(minilm):
    model = BiEncoder.load(minilm, device="cpu")
    assert (model.contract.pooling, model.contract.normalize) == ("mean", True)
    assert model.contract.document_max_length == 256
    assert difference(model.encode_documents(TEXTS), st_model(minilm).encode(TEXTS)) < 1e-5


@pytest.mark.parametrize("pooling", ["cls", "mean", "last_token"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("towers", [1, 2])
def test_a_saved_folder_gives_equal_vectors_there_and_here(
    tiny_bert, tmp_path, pooling, normalize, towers
):
    model = BiEncoder.load(
        tiny_bert,
        pooling=pooling,
        normalize=normalize,
        towers=towers,
        query_instruction="query: ",
        document_instruction="passage: ",
        query_max_length=12,
        document_max_length=48,
        device="cpu",
    )
    if towers == 2:  # make them differ
        with torch.no_grad():
            model.towers[1].embeddings.word_embeddings.weight.add_(0.1)
    model.save(tmp_path / "m")
    again = BiEncoder.load(tmp_path / "m", device="cpu")
    assert again.contract == model.contract
    reference = st_model(tmp_path / "m")
    for role, encode, st_encode in (
        ("query", again.encode_queries, reference.encode_query),
        ("document", again.encode_documents, reference.encode_document),
    ):
        ours = model.encode_queries(TEXTS) if role == "query" else model.encode_documents(TEXTS)
        assert difference(encode(TEXTS), ours) == 0
        assert difference(encode(TEXTS), st_encode(TEXTS)) < 1e-5
    queries, documents = model.encode_queries(TEXTS), model.encode_documents(TEXTS)
    assert difference(queries, documents) > 1e-3


def test_batching_and_padding_do_not_change_a_vector(tiny_bert):
    model = BiEncoder.load(tiny_bert, pooling="mean", device="cpu")
    alone = np.concatenate([model.encode_documents([text]) for text in TEXTS])
    stats = EncodeStats()
    assert (
        difference(model.encode_documents(TEXTS, max_tokens=100, window=3, stats=stats), alone)
        < 1e-6
    )
    assert stats.texts == len(TEXTS) and stats.padded >= stats.tokens > 0
    padded = model.pad(model.tokenize(TEXTS, "document"))
    with torch.no_grad():
        assert difference(model(padded, "document").numpy(), alone) < 1e-6


def test_a_decoder_takes_the_last_token_with_left_padding(tiny_qwen, tmp_path):
    model = BiEncoder.load(tiny_qwen, normalize=True, query_instruction="Find: ", device="cpu")
    assert (model.contract.pooling, model.contract.padding_side) == ("last_token", "left")
    alone = np.concatenate([model.encode_queries([text]) for text in TEXTS])
    assert difference(model.encode_queries(TEXTS), alone) < 1e-5
    model.save(tmp_path / "m")
    assert BiEncoder.load(tmp_path / "m").contract == model.contract
    assert difference(st_model(tmp_path / "m").encode_query(TEXTS), alone) < 1e-5


def test_a_decoder_pads_on_the_right_as_well(tiny_qwen):
    left = BiEncoder.load(tiny_qwen, device="cpu")
    right = BiEncoder.load(tiny_qwen, padding_side="right", device="cpu")
    assert difference(left.encode_queries(TEXTS), right.encode_queries(TEXTS)) < 1e-5


def test_a_contradiction_is_refused_with_all_that_differs(tiny_bert, tmp_path):
    BiEncoder.load(tiny_bert, pooling="mean", query_instruction="q: ", device="cpu").save(
        tmp_path / "m"
    )
    with pytest.raises(ConfigError) as caught:
        BiEncoder.load(tmp_path / "m", pooling="cls", query_instruction="query: ", normalize=False)
    message = str(caught.value)
    assert "model.pooling='cls' but 'mean' in the checkpoint" in message
    assert "model.query_instruction='query: ' but 'q: '" in message
    assert "normalize" not in message
    model = BiEncoder.load(tmp_path / "m", pooling="cls", replace_contract=True)
    assert (model.contract.pooling, model.contract.query_instruction) == ("cls", "q: ")


def test_a_sentence_transformers_pooling_is_not_contradicted_but_a_prompt_may_be_added(minilm):
    with pytest.raises(ConfigError, match=r"model\.pooling='cls' but 'mean'"):
        BiEncoder.load(minilm, pooling="cls")
    model = BiEncoder.load(minilm, query_instruction="q: ", query_max_length=32, device="cpu")
    assert model.contract.max_length("query") == 32 and model.contract.max_length("document") == 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_max_length": 65}, r"model\.query_max_length=65: expected 2 to 64"),
        ({"truncate": 33}, r"^dimension=33: expected 1 to 32"),
        ({"dimensions": (32, 16)}, r"model\.dimensions=\(32, 16\): expected ascending"),
        ({"towers": 3}, r"model\.towers=3"),
        ({"dtype": "int8"}, r"model\.dtype: 'int8': expected one of float32"),
        ({"attention": "nonsense"}, r"attention=nonsense"),
        ({"lora": Lora(targets=("nowhere",))}, r"model\.lora: .*nowhere"),
    ],
)
def test_a_value_out_of_bounds_is_named(tiny_bert, options, message):
    with pytest.raises(ConfigError, match=message):
        BiEncoder.load(tiny_bert, **options)


def test_what_is_no_model_is_named(tiny_bert, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        BiEncoder.load("./nowhere")
    with pytest.raises(DataError, match="neither a folder nor a model that can be fetched"):
        BiEncoder.load("nobody/nothing")
    with pytest.raises(DataError, match=r"no config\.json of a model"):
        BiEncoder.load(tmp_path)
    bare = shutil.copytree(tiny_bert, tmp_path / "bin")
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"no \*\.safetensors"):
        BiEncoder.load(bare)


def test_an_exchanged_tokenizer_is_refused(tiny_bert, tmp_path):
    folder = tmp_path / "m"
    BiEncoder.load(tiny_bert, device="cpu").save(folder)
    record = json.loads((folder / "tokenizer.json").read_text())
    record["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is not the one"):
        BiEncoder.load(folder)


def test_an_unsupported_module_is_refused(minilm, tmp_path):
    folder = shutil.copytree(minilm, tmp_path / "m")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append(
        {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    )
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ArtifactError, match="a module Dense is not supported"):
        BiEncoder.load(folder)


def test_large_weights_are_written_to_several_files(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr(backbone, "SHARD_BYTES", 30_000)
    model = BiEncoder.load(tiny_bert, pooling="mean", device="cpu")
    model.save(tmp_path)
    assert len([*tmp_path.glob("model-*-of-*.safetensors")]) > 1
    again = BiEncoder.load(tmp_path, device="cpu")
    assert np.array_equal(again.encode_queries(TEXTS), model.encode_queries(TEXTS))
    assert difference(st_model(tmp_path).encode(TEXTS), model.encode_queries(TEXTS)) < 1e-5


def test_lora_trains_few_weights_and_saves_them_merged(tiny_bert, tmp_path):
    model = BiEncoder.load(tiny_bert, pooling="mean", lora=Lora(r=4), device="cpu")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    vectors = model.encode_documents(TEXTS)
    model.save(tmp_path / "m")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    merged = BiEncoder.load(tmp_path / "m", device="cpu")
    assert (
        difference(merged.encode_documents(TEXTS), vectors) < 1e-4
    )  # float32 sums in another order
    plain = BiEncoder.load(tiny_bert, pooling="mean", device="cpu")
    assert difference(plain.encode_documents(TEXTS), vectors) > 1e-2


def test_gradient_checkpointing_changes_no_gradient(tiny_bert):
    gradients = []
    for checkpointing in (False, True):
        model = BiEncoder.load(
            tiny_bert, pooling="mean", gradient_checkpointing=checkpointing, dropout=0, device="cpu"
        ).train()
        model(model.pad(model.tokenize(TEXTS, "query")), "query").square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
        assert all(g is not None for g in gradients[-1].values()), "an unused weight is trained"
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6)


def test_a_compiled_model_gives_the_same_vectors_and_gradients(tiny_bert, tmp_path):
    models = [BiEncoder.load(tiny_bert, dropout=0, device="cpu").train() for _ in range(2)]
    backbone.compiled(models[1].towers, backend="eager")
    inputs = models[0].pad(models[0].tokenize(TEXTS, "query"))
    vectors = [model(inputs, "query") for model in models]
    assert difference(*(each.detach() for each in vectors)) < 1e-6
    for each in vectors:
        each[:, ::3].sum().backward()
    plain, compiled = (dict(model.named_parameters()) for model in models)
    assert plain.keys() == compiled.keys()
    for name, parameter in plain.items():
        torch.testing.assert_close(compiled[name].grad, parameter.grad, rtol=1e-4, atol=1e-6)
    models[1].save(tmp_path)
    BiEncoder.load(tmp_path, device="cpu")


def test_compile_reaches_the_transformer_alone(tiny_bert):
    model = BiEncoder.load(tiny_bert, compile=True, device="cpu")
    assert model.towers[0]._compiled_call_impl is not None  # torch compiles at the first call


def test_no_dropout_makes_training_mode_deterministic(tiny_bert):
    model = BiEncoder.load(tiny_bert, dropout=0, device="cpu").train()
    inputs = model.pad(model.tokenize(TEXTS, "query"))
    assert torch.equal(model(inputs), model(inputs))
    noisy = BiEncoder.load(tiny_bert, dropout=0.5, device="cpu").train()
    assert not torch.equal(noisy(inputs), noisy(inputs))


def test_low_precision_is_close_and_pools_in_float32(tiny_bert):
    exact = BiEncoder.load(tiny_bert, pooling="mean", device="cpu").encode_documents(TEXTS)
    for options in ({"dtype": "bfloat16"}, {"autocast": "bfloat16"}):
        model = BiEncoder.load(tiny_bert, pooling="mean", device="cpu", **options)
        vectors = model(model.pad(model.tokenize(TEXTS, "document")), "document")
        assert vectors.dtype == torch.float32
        assert 0 < difference(vectors.detach(), exact) < 0.1
    double = BiEncoder.load(tiny_bert, pooling="mean", dtype="float64", device="cpu")
    vectors = double(double.pad(double.tokenize(TEXTS, "document")), "document")
    assert vectors.dtype == torch.float64 and difference(vectors.detach(), exact) < 1e-5


def test_truncation_is_the_normalised_prefix(minilm):
    whole = BiEncoder.load(minilm, device="cpu").encode_documents(TEXTS)
    short = BiEncoder.load(minilm, truncate=64, device="cpu")
    assert short.dimension == 64
    prefix = whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True)
    assert difference(short.encode_documents(TEXTS), prefix) < 1e-6


def test_an_answer_is_encoded_by_the_query_tower_with_its_own_instruction(tiny_bert):
    model = BiEncoder.load(
        tiny_bert, towers=2, query_instruction="query ", answer_instruction="answer ", device="cpu"
    )
    assert model.tower("answer") is model.tower("query") is not model.tower("document")
    assert model.tokenize(["x"], "answer") == model.tokenize(["answer x"], "query", instruction="")


def test_a_finished_run_is_loaded_from_its_final_checkpoint(tiny_bert, tmp_path):
    BiEncoder.load(tiny_bert, pooling="mean", device="cpu").save(tmp_path / "run/checkpoint-final")
    (tmp_path / "run/config.json").write_text("{}")  # the run's own configuration
    assert BiEncoder.load(tmp_path / "run").contract.pooling == "mean"
    (tmp_path / "run/checkpoint-final").rename(tmp_path / "elsewhere")
    (tmp_path / "run/metrics.jsonl").touch()
    with pytest.raises(DataError, match="a training run without checkpoint-final"):
        BiEncoder.load(tmp_path / "run")


def test_a_model_may_be_named_by_a_uri(tiny_bert, tmp_path):
    model = BiEncoder.load(tiny_bert, pooling="mean", device="cpu")
    model.save(tmp_path / "m")
    again = BiEncoder.load((tmp_path / "m").as_uri(), device="cpu")
    assert difference(again.encode_queries(TEXTS), model.encode_queries(TEXTS)) == 0
