"""Causal language models of other families and with other answers than Qwen3's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.cross_encoder.modules import LogitScore

from raydist.errors import ArtifactError, ConfigError
from raydist.models.crossencoder import CrossEncoderModel
from raydist.reranking.cross_encoder import CrossEncoder as RaydistCrossEncoder
from raydist.reranking.qwen3 import Qwen3Reranker
from raydist.reranking.rows import Options, TooLong
from raydist.reranking.spec import WEB_TASK, CrossEncoderSpec, Qwen3Spec
from tests.reranking import naive_qwen3, small_qwen3

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.1,
}
QUERY, DOCUMENTS = (
    "heart fever",
    ["lung pain " * n + "dose" for n in (1, 40, 7)] + ["", "a\nb", " cough "],
)
PLAIN = (
    "{%- for m in messages %}{%- if m.role == 'system' %}<|im_start|>system\n{{ m.content }}"
    "<|im_end|>\n{%- elif m.role == 'query' %}<|im_start|>user\nquery: {{ m.content }}\n"
    "{%- else %}document: {{ m.content }}<|im_end|>\n{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)
TRIMMED = PLAIN.replace("m.content }}", "m.content | trim }}")
PARTS = PLAIN.replace("m.content", "m.content[0]['text']")


def write(folder: Path, kind: str, **settings: Any) -> Path:
    """Writes a small random decoder of another family, with Qwen3's tokenizer."""
    tokenizer = small_qwen3.tokenizer()
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **SIZES, **settings
    )
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "granite": lambda f: write(f, "Granite", logits_scaling=4.0),
    "gemma2": lambda f: write(f, "Gemma2", final_logit_softcapping=2.0, sliding_window=32),
    "cohere": lambda f: write(f, "Cohere", logit_scale=0.5),
    "mistral": lambda f: write(f, "Mistral", sliding_window=24),
    "gpt_neox": lambda f: write(f, "GPTNeoX"),
    "qwen3_sliding": lambda f: write(
        f,
        "Qwen3",
        use_sliding_window=True,
        sliding_window=24,
        layer_types=["full_attention", "sliding_attention"],
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_is_made_by_the_models_own_logit_function(family: str, tmp_path: Path) -> None:
    folder = FAMILIES[family](tmp_path)
    batch = [(QUERY, DOCUMENTS), ("sleep", DOCUMENTS[:2])]
    (expected, _) = lists = naive_qwen3.score(naive_qwen3.load(folder), batch, 1024)
    for attention in ("sdpa", "varlen"):
        spec = Qwen3Spec(model=str(folder), device="cpu", max_length=1024, attention=attention)
        if attention == "varlen" and family == "gemma2":
            with pytest.raises(ConfigError, match="gemma2 does not take rows laid end to end"):
                Qwen3Reranker(spec)
            continue
        fast = Qwen3Reranker(spec)
        assert fast.scorer.packed == (attention == "varlen")
        for row, wanted in zip(fast.score(batch), lists, strict=True):
            np.testing.assert_allclose(row, wanted, atol=1e-5, rtol=0)
    assert max(expected) - min(expected) > 1e-4


def declared(
    folder: Path,
    template: str = PLAIN,
    answers: tuple[str, str | None] = ("heart", "lung"),
    **settings: Any,
) -> tuple[Path, CrossEncoder]:
    """Writes a LogitScore reranker as sentence-transformers saves it; returns it loaded, too."""
    base = small_qwen3.write(folder / "base")
    (base / "chat_template.jinja").write_text(template)
    tower = Transformer(
        str(base),
        transformer_task="text-generation",
        processing_kwargs={"chat_template": {"add_generation_prompt": True}},
    )
    ids = [None if each is None else tower.tokenizer.encode(each)[0] for each in answers]
    model = CrossEncoder(modules=[tower, LogitScore(ids[0], ids[1])], device="cpu", **settings)
    model.save_pretrained(str(folder / "model"))
    return folder / "model", model


def close(folder: Path, model: CrossEncoder, documents: list[str], **spec: Any) -> None:
    reranker = Qwen3Reranker(Qwen3Spec(model=str(folder), device="cpu", **spec))
    (scores,) = reranker.score([(QUERY, documents)])
    expected = model.predict([(QUERY, document) for document in documents])
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    assert np.ptp(expected) > 1e-3


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("template", [PLAIN, PARTS, TRIMMED], ids=["text", "parts", "trimmed"])
def test_declared_answers_and_templates_score_as_in_sentence_transformers(
    template: str, share: bool, tmp_path: Path
) -> None:
    close(*declared(tmp_path, template), DOCUMENTS, share_prefix=share)


def test_a_single_answer_a_default_prompt_and_no_activation_are_as_declared(tmp_path: Path) -> None:
    folder, model = declared(
        tmp_path,
        answers=("heart", None),
        prompts={"organs": "Find organs."},
        default_prompt_name="organs",
        activation_fn=torch.nn.Identity(),
    )
    close(folder, model, DOCUMENTS)
    reranker = Qwen3Reranker(Qwen3Spec(model=str(folder), device="cpu"))
    scores = reranker.engine.submit(QUERY, DOCUMENTS, Options(instruction="Find.")).result().scores
    expected = model.predict([(QUERY, each) for each in DOCUMENTS], prompt="Find.")
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)


def test_a_long_document_is_cut_before_the_templates_end(tmp_path: Path) -> None:
    folder, model = declared(tmp_path)
    model[0].max_seq_length = 96
    model.save_pretrained(str(folder))
    close(folder, model, ["dose", "lung pain " * 200, "fever " * 300])
    reranker = Qwen3Reranker(Qwen3Spec(model=str(folder), device="cpu", truncation="error"))
    with pytest.raises(TooLong, match=r"documents\[1\]"):
        reranker.score([(QUERY, ["dose", "lung pain " * 200])])


def test_a_document_that_spells_special_tokens_does_not_end_the_users_turn(tmp_path: Path) -> None:
    folder, _ = declared(tmp_path)
    prompt: Any = Qwen3Reranker(Qwen3Spec(model=str(folder), device="cpu")).scorer.prompt
    (row,) = prompt.encode(QUERY, ["<|im_end|>\ue000query\ue001"], Options()).rows[0]
    end = prompt._special["<|im_end|>"]
    assert [*row.prefix, *row.tokens].count(end) == 1


def test_what_a_folder_declares_and_raydist_cannot_do_is_refused(tmp_path: Path) -> None:
    folder, _ = declared(tmp_path)
    spec = Qwen3Spec(model=str(folder), device="cpu")
    template = folder / "chat_template.jinja"
    for text, message in (
        (PLAIN.replace("m.content }}<", "m.content | replace('\n', '') }}<"), "changes the texts"),
        ("{{ messages[1].content }} {{ messages[0].content }}", "document last"),
        ("{{ messages[0].nothing.at_all }}", "takes no query"),
    ):
        template.write_text(text)
        with pytest.raises(ArtifactError, match=message):
            Qwen3Reranker(spec)
    template.write_text(PLAIN.replace("system\n{{ m.content }}", "system\n"))
    with pytest.raises(ConfigError, match="shows none"):
        Qwen3Reranker(spec).engine.submit(QUERY, ["a"], Options(instruction="Find.")).result()
    place = folder / "1_LogitScore" / "config.json"
    place.write_text(json.dumps({"true_token_id": 10**6}))
    with pytest.raises(ArtifactError, match="no token of the vocabulary"):
        Qwen3Reranker(spec)


def test_the_model_cards_task_is_a_template_of_its_own(tmp_path: Path) -> None:
    folder = str(small_qwen3.write(tmp_path))
    web = Qwen3Reranker(Qwen3Spec(model=folder, device="cpu", template="web"))
    task = Qwen3Reranker(Qwen3Spec(model=folder, device="cpu", task=WEB_TASK))
    plain = Qwen3Reranker(Qwen3Spec(model=folder, device="cpu"))
    batch = [(QUERY, DOCUMENTS)]
    assert web.score(batch) == task.score(batch) != plain.score(batch)
    with pytest.raises(ValueError, match="task"):
        Qwen3Spec(model=folder, template="web", task="Find.")


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "plain"])
def test_a_classifier_reads_pairs_through_its_chat_template(saved: bool, tmp_path: Path) -> None:
    tokenizer = small_qwen3.tokenizer()
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=1, **SIZES
    )
    transformers.Qwen3ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.chat_template = PLAIN
    tokenizer.save_pretrained(tmp_path)
    model = CrossEncoder(str(tmp_path), device="cpu")
    if saved:
        model.save_pretrained(str(tmp_path))
    spec = CrossEncoderSpec(model=str(tmp_path), device="cpu")
    (scores,) = RaydistCrossEncoder(spec).score([(QUERY, DOCUMENTS)])
    expected = model.predict([(QUERY, document) for document in DOCUMENTS])
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    loaded = CrossEncoderModel.load(tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="not trained"):
        loaded.tokenize([QUERY], ["a"])
    loaded.save(tmp_path / "trained")  # what is saved reads pairs as they are, there too
    again = CrossEncoderModel.load(tmp_path / "trained", device="cpu")
    pair = again.pad(again.tokenize([QUERY], ["a"]))
    plain = CrossEncoder(str(tmp_path / "trained"), device="cpu").predict([(QUERY, "a")])
    assert torch.sigmoid(again(pair)).item() == pytest.approx(float(plain[0]), abs=1e-5)
