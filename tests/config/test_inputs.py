from __future__ import annotations

from pathlib import Path

import pytest

from raydist.config.inputs import contents
from raydist.config.load import load
from raydist.config.mine import MineConfig
from raydist.config.training import TrainConfig


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


def test_inputs_are_identified_by_their_content(here: Path) -> None:
    names = ["docs", "keep.txt", "out/run.txt", "qrels.*", "queries.jsonl"]
    before = contents(mine())
    assert sorted(before) == names
    for changed, file in zip(names, ["docs/corpus.jsonl", *names[1:3], "qrels.txt", names[4]]):
        (here / file).write_text("other")
        after = contents(mine())
        assert [name for name in names if before[name] != after[name]] == [changed]
        before = after
    (here / "train").write_text("a result")
    (here / "rejects").write_text("bad lines")
    assert contents(mine()) == before


@pytest.mark.parametrize("own", ["out", "out/run.txt", "out/run.txt/parts", "{here}/out"])
def test_the_verbs_own_places_are_not_inputs(own: str, here: Path) -> None:
    assert "out/run.txt" not in contents(mine(), [own.format(here=here)])
    assert "out/run.txt" in contents(mine(), ["ou", "out/run"])


def test_models_and_collections_are_inputs_but_missing_files_are_not() -> None:
    package = "package:raydist/config"
    words = [f"model={package}", "out=x", "data=docstrings:", "validation.dev.queries=nowhere"]
    words += ["validation.dev.corpus=s3:nowhere", "validation.dev.qrels=nowhere"]
    assert sorted(contents(load(TrainConfig, (), words))) == ["docstrings:", package]
