"""Tokenizers of Hugging Face as analyzers: tokens are those of the tokenizers library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from raydist.bow.index import BowIndex
from raydist.cli import main
from raydist.errors import ArtifactError
from raydist.text.analyzer import Analyzer
from raydist.text.passages import find_matches
from raydist.text.spec import AnalyzerSpec
from raydist.text.subwords import Subwords

TEXTS = [
    "The herons of the canal eat fish, and the heron's canal has fishes.",
    "Fishing boats on the canals; a boat-house, boats' houses",
    "naïve Überfälle — 東京タワー ☃ 12.5",
    "",
    "   [UNK] <pad> \t two  blanks\n",
    "x" * 300 + " unheard-of",
]


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]", "[CLS]"])
    tokenizer.train_from_iterator(TEXTS[:2], trainer)
    return tokenizer


def bytes_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS[:2], trainer)
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS[:2], trainer)
    return tokenizer


MAKERS = {"wordpiece": wordpiece, "bpe": bytes_bpe, "unigram": unigram}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = MAKERS[request.param]()
    tokenizer.enable_truncation(3)  # of a model's inputs, not of documents
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def expected(folder: Path, text: str) -> list[str]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [each[:255] for each in tokenizer.encode(text, add_special_tokens=False).tokens]


def test_terms_are_the_librarys_tokens_one_by_one_and_in_batches(folder: Path) -> None:
    analyzer = AnalyzerSpec(tokenizer=str(folder)).build()
    tokens = [expected(folder, text) for text in TEXTS]
    assert len(tokens[0]) > 10
    assert [analyzer.tokens(text) for text in TEXTS] == tokens
    lexicon = analyzer.lexicon()
    for _ in range(2):  # all tokens are known the second time
        terms, lengths, positions = lexicon.with_positions(pa.array(TEXTS * 60, pa.large_string()))
        names = [name.decode() for name in lexicon.terms.strings().to_pylist()]
        assert [names[term] for term in terms.tolist()] == [t for each in tokens for t in each] * 60
        assert lengths.tolist() == [len(each) for each in tokens] * 60
        assert positions[: len(tokens[0])].tolist() == list(range(len(tokens[0])))


def test_the_analyzer_is_its_file_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "tokenizer.json", tmp_path / "other.json")
    analyzer = AnalyzerSpec(tokenizer=str(folder)).build()
    assert AnalyzerSpec(tokenizer=str(tmp_path / "other.json")).build() == analyzer
    back = Analyzer.from_dict(json.loads(json.dumps(analyzer.to_dict())))
    assert back == analyzer and back.fingerprint == analyzer.fingerprint != Analyzer().fingerprint
    packed = analyzer.to_dict()["tokenizer"]
    with pytest.raises(ArtifactError, match="damaged"):
        Subwords.unpack(packed[: len(packed) // 2])
    other = {**analyzer.to_dict(), "tokenizer": Subwords(b'{"version": "1.0"}').pack()}
    with pytest.raises(ArtifactError, match="fingerprint"):
        Analyzer.from_dict(other)


def test_words_that_match_are_tokens_of_the_query(folder: Path) -> None:
    analyzer = AnalyzerSpec(tokenizer=str(folder)).build()
    matches = find_matches(TEXTS[0], " canal", analyzer)
    spans = [TEXTS[0][start:end] for start, end, _ in matches]
    assert spans.count("canal") == 2


def test_an_index_carries_its_tokenizer(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "tokenizer"))
    rows = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS) if text.strip()]
    for name, some in (("c", rows), ("more", [{"id": "m", "text": TEXTS[0]}])):
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    out = tmp_path / "IDX"
    build = ["index", f"corpus={tmp_path}/c.jsonl", f"out={out}", "positions=true"]
    assert main([*build, f"analyzer.tokenizer={own}"]) == 0
    elsewhere = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    for same in (own / "tokenizer.json", elsewhere):
        assert main([*build, f"analyzer.tokenizer={same}"]) == 0
        assert "already built" in capsys.readouterr().err
    other = (own / "tokenizer.json").read_text(encoding="utf-8") + "\n"
    (elsewhere / "tokenizer.json").write_text(other, encoding="utf-8")
    assert main([*build, f"analyzer.tokenizer={elsewhere}"]) == 2
    more = ["index", f"corpus={tmp_path}/more.jsonl", f"out={out}", "positions=true", "--append"]
    assert main(more) == 2 and "analyzer.fingerprint" in capsys.readouterr().err
    assert main([*more, f"analyzer.tokenizer={own}"]) == 0
    shutil.rmtree(own)
    capsys.readouterr()
    assert main(["analyze", f"index={out}", f"text={TEXTS[1]}"]) == 0
    assert capsys.readouterr().out.split() == " ".join(expected(folder, TEXTS[1])).split()
    assert main(["search", f"index={out}", f"query={TEXTS[1]}", "k=1"]) == 0
    assert "d1\n" in capsys.readouterr().out
    blank = " " if "bpe" in folder.name else ""  # which is a part of its tokens
    query = f'query="{blank}canal eat"'
    assert main(["search", f"index={out}", query, "syntax=lucene", "k=5"]) == 0
    assert "d0\n" in capsys.readouterr().out
    assert main(["merge", str(out)]) == main(["verify", str(out)]) == 0
    index = BowIndex.open(out)
    for term in set(expected(folder, TEXTS[0])):
        documents = sum(term in expected(folder, text) for text in [*TEXTS, TEXTS[0]])
        assert index.document_frequency(term) == documents


def test_analyze_shows_tokens_and_mistakes_are_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["analyze", f"text={TEXTS[2]}", f"analyzer.tokenizer={folder}"]
    assert main(words) == 0
    assert capsys.readouterr().out == " ".join(expected(folder, TEXTS[2])) + "\n"
    (tmp_path / "vocab.txt").write_text("a\nb\n")  # a slow tokenizer's
    (tmp_path / "bad.json").write_text("{}")

    def refusal(*more: str) -> str:
        assert main([*words[:2], *more]) == 2
        return capsys.readouterr().err

    assert "save_pretrained(FOLDER)" in refusal(f"analyzer.tokenizer={tmp_path}")
    assert "not a tokenizer" in refusal(f"analyzer.tokenizer={tmp_path}/bad.json")
    for key in ("stemmer=porter", "language=de", "stop_words=a", "normalize=true"):
        name = key.partition("=")[0]
        assert f"{name}: analyzer.tokenizer" in refusal(words[2], f"analyzer.{key}")
