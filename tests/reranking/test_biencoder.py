from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from raydist.config.load import load
from raydist.config.rerank import RerankConfig
from raydist.errors import ConfigError
from raydist.models.biencoder import BiEncoder
from raydist.reranking.biencoder import BiEncoderReranker, BiEncoderScorer, similarities
from raydist.reranking.engine import Engine
from raydist.reranking.load import load_reranker
from raydist.reranking.rows import Options, TooLong
from raydist.reranking.spec import BiEncoderSpec, RegisteredSpec
from tests.training.small import checkpoint, texts


class Counting:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.seen.extend(texts)
        return np.array([[len(text), 2.0] for text in texts], np.float32)


def test_scores_are_dot_products_and_equal_documents_are_encoded_once() -> None:
    encoder = Counting()
    actual = similarities(encoder, [("aa", ["x", "xyz"]), ("a", []), ("aaa", ["x"])])
    assert actual == [[4.0, 8.0], [], [5.0]]
    assert encoder.seen == ["x", "xyz"]


def test_nothing_to_score_encodes_nothing() -> None:
    assert similarities(Counting(), [("a", []), ("b", [])]) == [[], []]
    assert similarities(Counting(), []) == []


QUERIES = ["river stone", "lamp " * 30, "garden"]
BATCH = [(query, [*texts()[i : i + 9], "bread " * 40, ""]) for i, query in enumerate(QUERIES)]


def with_instructions(folder: Path, **options: object) -> Path:
    """A bi-encoder with instructions, which keeps few tokens; its tokenizer pads and cuts."""
    instructions = {"query_instruction": "winter market: ", "document_instruction": "paper: "}
    lengths = {"query_max_length": 9, "document_max_length": 12}
    BiEncoder.load(checkpoint(folder / "plain"), **instructions, **lengths, **options).save(
        folder / "instructed"
    )
    own = folder / "instructed" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(own))
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(10)
    tokenizer.save(str(own))
    return folder / "instructed"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("tokens", [0, 16])
def test_scores_are_those_of_the_texts_encoded_whole(
    tmp_path: Path, side: str, tokens: int
) -> None:
    folder = with_instructions(tmp_path)
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"truncation_side": side}))
    expected = similarities(BiEncoder.load(folder, device="cpu"), BATCH)
    words = ["run=r", "corpus=c", "queries=q", "out=o", f"reranker={folder}"]
    config = load(RerankConfig, (), [*words, f"reranker.batch_tokens={tokens}"])
    reranker = load_reranker(config.reranker)
    assert isinstance(reranker, BiEncoderReranker)
    first = reranker.score([*BATCH, ("none", [])])
    for _ in range(2):  # the second time from the vectors that the engine remembers
        served = reranker.engine.score([*BATCH, ("none", [])])
        for each in (first, served):
            for actual, scores in zip(each, [*expected, []]):
                assert actual == pytest.approx(scores, abs=1e-5)
    assert reranker.score([*BATCH, ("none", [])]) == first  # to the bit, whatever came between
    assert reranker.score([("none", [])]) == [[]] and reranker.score([]) == []


PIECES = ["river lamp stone engine", "harbour letter music paper", "bridge"]


@pytest.fixture
def short(tmp_path: Path) -> BiEncoder:
    """Keeps four words of a document beside its instruction and special tokens."""
    return BiEncoder.load(
        with_instructions(tmp_path), device="cpu", document_max_length=8, replace_contract=True
    )


def test_a_long_document_is_scored_in_pieces(short: BiEncoder) -> None:
    (expected,) = similarities(short, [("garden", PIECES)])
    with Engine(BiEncoderScorer(short)) as engine:
        scored = engine.submit("garden", [" ".join(PIECES), PIECES[2]], Options("chunk_max"))
        actual = scored.result()
    assert actual.scores.tolist() == pytest.approx([max(expected), expected[2]], abs=1e-5)
    assert actual.chunks == [3, 1] and actual.truncated == [False, False]


def test_cuts_are_reported_and_too_long_texts_can_be_refused(short: BiEncoder) -> None:
    documents = [" ".join(PIECES), PIECES[0]]
    cut = ["river lamp", "river lamp"]
    (expected,) = similarities(short, [("garden", cut)])
    scorer = BiEncoderScorer(short)
    with Engine(scorer) as engine:
        actual = engine.submit("garden", documents, Options(max_tokens_per_document=2)).result()
        assert actual.scores.tolist() == pytest.approx(expected, abs=1e-5)
        assert actual.truncated == [True, True]
        assert engine.submit("garden", documents).result().truncated == [True, False]
        assert engine.submit(QUERIES[1], documents).result().truncated == [True, True]
    with pytest.raises(TooLong, match=r"documents\[1\] has 9 tokens and there is room for 4"):
        scorer.encode("garden", documents[::-1], Options("error"))
    with pytest.raises(TooLong, match="query"):
        scorer.encode(QUERIES[1], [PIECES[2]], Options("error"))
    with pytest.raises(ConfigError, match="takes no instruction"):
        scorer.encode("garden", documents, Options(instruction="find it"))


def test_only_the_last_vectors_are_kept(short: BiEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydist.reranking.biencoder._RECENT", 3)
    scorer = BiEncoderScorer(short)
    (expected,) = similarities(short, [("garden", texts()[:9])])
    rows = [row for each in scorer.encode("garden", texts()[:9], Options()).rows for row in each]
    assert scorer.forward(rows).tolist() == pytest.approx(expected, abs=1e-5)
    assert len(scorer._recent) == 3


def test_a_registered_bi_encoder_keeps_its_options(tmp_path: Path) -> None:
    registered = RegisteredSpec(model="models:/m@champion", device="cpu", threads=3)
    folder = str(checkpoint(tmp_path / "model"))
    assert registered.at(folder) == BiEncoderSpec(model=folder, device="cpu", threads=3)
