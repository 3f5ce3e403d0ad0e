from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from raydist.config.convert import ExportConfig
from raydist.config.embed import EmbedConfig
from raydist.config.inputs import external, inputs
from raydist.config.load import load
from raydist.config.mine import MineConfig
from raydist.config.training import TrainConfig
from raydist.fingerprints import Contents


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("docs/corpus.jsonl", "queries.jsonl", "qrels.txt", "keep.txt", "out/run.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def mine(**changed: str) -> MineConfig:
    values = {"run": "out/run.txt", "queries": "queries.jsonl", "qrels": "qrels.*", "out": "train"}
    values |= {"corpus": "docs", "corpus.ids": "keep.txt", "corpus.rejects": "rejects", **changed}
    return load(MineConfig, (), [f"{key}={value}" for key, value in values.items()])


def texts(found: Mapping[str, Contents]) -> dict[str, str]:
    return {name: str(each) for name, each in found.items()}


def test_inputs_are_identified_by_their_content(here: Path) -> None:
    names = ["run", "queries", "qrels", "corpus", "corpus.ids"]
    before = texts(inputs(mine()))
    assert list(before) == names
    files = ["out/run.txt", "queries.jsonl", "qrels.txt", "docs/corpus.jsonl", "keep.txt"]
    for changed, file in zip(names, files):
        (here / file).write_text("other")
        after = texts(inputs(mine()))
        assert [name for name in names if before[name] != after[name]] == [changed]
        before = after
    (here / "train").write_text("a result")
    (here / "rejects").write_text("bad lines")
    assert texts(inputs(mine())) == before


def test_an_input_says_which_field_only_names_its_place(here: Path) -> None:
    places = {name: ".".join(*each.places) for name, each in inputs(mine()).items()}
    assert places == {
        **{"run": "run", "queries": "queries.path", "qrels": "qrels.path"},
        **{"corpus": "corpus.path", "corpus.ids": "corpus.ids"},
    }
    words = ["data=d.jsonl", "model=m", "out=o", "corpus=c.jsonl", "datasets={}"]
    words += ["validation.a.b.corpus=c", "validation.a.b.queries=q", "validation.a.b.qrels=r"]
    words = [word.replace("a.b", "dev") for word in words]
    names = list(inputs(load(TrainConfig, (), words)))
    validation = [f"validation.dev.{part}" for part in ("corpus", "queries", "qrels")]
    assert names == ["data", "corpus", *validation, "model"]


def test_texts_that_only_look_like_paths_are_no_inputs(here: Path) -> None:
    for name in ("anserini", "english", "mean", "0"):
        (here / name).write_text("a file of this name")
    words = ["corpus=docs", "model=package:raydist/config", "model.pooling=mean", "out=o"]
    words += ["model.query_instruction=keep.txt", "corpus.fields.id=keep.txt"]
    assert list(inputs(load(EmbedConfig, (), words))) == ["corpus", "model"]


def test_a_text_is_an_input_where_it_names_a_file(here: Path) -> None:
    words = ["checkpoint=m", "out=o", "doc=keep.txt", "bibtex=@misc{x}"]
    assert list(inputs(load(ExportConfig, (), words))) == ["checkpoint", "doc"]


def test_the_fast_form_is_chosen_by_the_configuration() -> None:
    found = texts(inputs(mine(fingerprint="fast")))
    assert {each.partition(":")[0] for each in found.values()} == {"fast"}


@pytest.mark.parametrize("own", ["out", "out/run.txt", "out/run.txt/parts", "{here}/out"])
def test_the_verbs_own_places_are_not_external(own: str, here: Path) -> None:
    assert "run" not in external(mine(), [own.format(here=here)])
    assert "run" in external(mine(), ["ou", "out/run"])


def test_models_and_collections_are_external_but_missing_files_are_not() -> None:
    words = ["model=package:raydist/config", "out=x", "data=docstrings:"]
    words += ["validation.dev.queries=nowhere", "validation.dev.corpus=nowhere"]
    words += ["validation.dev.qrels=nowhere"]
    assert list(external(load(TrainConfig, (), words), [])) == ["data", "model"]
