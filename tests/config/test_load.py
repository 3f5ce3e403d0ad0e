from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from raydist.config.base import Block, execution
from raydist.config.index import IndexConfig
from raydist.config.load import load, split_words
from raydist.config.mine import MineConfig
from raydist.config.schema import reference
from raydist.config.search import SearchConfig
from raydist.errors import ConfigError
from raydist.spec import Bytes


class Source(Block):
    primary = "path"
    path: str
    """Path of the file."""
    ids: str | None = None


class Plain(Block):
    kind: Literal["infonce"] = "infonce"
    temperature: float = Field(0.02, gt=0)


class Reinforced(Block):
    kind: Literal["biir"] = "biir"
    temperature: float = 0.02
    normalize: bool = True


class Listener(Block):
    metrics: dict[str, bool] = {"map": True}
    listeners: list[str] = []


class Example(Block):
    corpus: Source
    """The corpus."""
    out: str
    loss: Annotated[Plain | Reinforced, Field(discriminator="kind")] = Plain()
    validation: dict[str, Listener] = {}
    workers: int = execution(0, ge=0)
    memory: Bytes = 1 << 30
    measures: list[str] = ["AP"]
    text: str = ""
    limit: int | None = None


def read(*arguments: str, files: tuple[str, ...] = ()) -> dict[str, Any]:
    return load(Example, files, ("corpus=c.jsonl", "out=o", *arguments)).resolved()


def test_values_are_read_by_the_type_of_their_field() -> None:
    config = read(
        "loss.temperature=2e-5", "memory=512MiB", "measures=AP(rel=2,x)@3,R@10", "limit=7"
    )
    assert config["loss"]["temperature"] == 2e-5
    assert config["memory"] == 512 << 20
    assert config["measures"] == ["AP(rel=2,x)@3", "R@10"]
    assert config["limit"] == 7
    assert read("limit=null")["limit"] is None


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"])))
def test_text_is_taken_verbatim(text: str) -> None:
    assert read(f"text={text}")["text"] == text


def test_a_scalar_sets_the_primary_field_and_combines_with_dotted_keys_in_any_order() -> None:
    for arguments in (("corpus=f", "corpus.ids=g"), ("corpus.ids=g", "corpus=f")):
        assert load(Example, (), (*arguments, "out=o")).corpus == Source(path="f", ids="g")


def test_a_mapping_is_read_as_yaml_and_keeps_its_order() -> None:
    config = read("validation.dev.metrics={nDCG@10: true, R@100: false}")
    assert config["validation"]["dev"]["metrics"] == {"nDCG@10": True, "R@100": False}
    assert read("validation.a.listeners=[x, y]")["validation"]["a"]["listeners"] == ["x", "y"]


def test_files_merge_from_left_to_right_and_arguments_win(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text("corpus: f\nmeasures: [A, B]\ntext: no\nloss: {temperature: 1e-3}\n")
    b.write_text("measures: [C]\nworkers: 2\n")
    config = load(Example, (str(a), str(b)), ("workers=3", "out=o"))
    assert (config.measures, config.workers, config.text) == (["C"], 3, "no")
    assert config.loss == Plain(temperature=1e-3)


def test_a_changed_kind_replaces_the_block(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("loss: {kind: biir, temperature: 0.5}\n")
    assert read("loss.kind=infonce", files=(str(file),))["loss"] == {
        "kind": "infonce",
        "temperature": 0.02,
    }
    assert read("loss.normalize=false", files=(str(file),))["loss"]["temperature"] == 0.5


def test_all_mistakes_are_reported_one_line_each_with_the_nearest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        read("loss.temprature=1", "workers=-1", "memory=much", "validation.dev.metric=1", "los=1")
    lines = str(caught.value).splitlines()
    assert any("loss.temprature: unknown key; did you mean loss.temperature?" in x for x in lines)
    assert any("validation.dev.metric: unknown key" in x and "metrics" in x for x in lines)
    assert any(x.startswith("workers = '-1'") for x in lines)
    assert any(x.startswith("memory = 'much'") for x in lines)
    assert len(lines) == 5


def test_a_missing_field_is_reported_with_its_help() -> None:
    with pytest.raises(ConfigError, match=r"corpus: required: The corpus\."):
        load(Example, (), ("out=o",))


def test_a_wrong_kind_lists_the_kinds() -> None:
    with pytest.raises(ConfigError, match=r"loss.kind = 'bir': expected one of infonce, biir"):
        read("loss=bir")


def test_a_key_that_occurs_twice_in_a_file_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("text: a\ntext: b\n")
    with pytest.raises(ConfigError, match="occurs twice"):
        read(files=(str(file),))


def test_a_list_that_is_set_twice_is_a_mistake_and_another_value_is_overridden() -> None:
    with pytest.raises(ConfigError, match=r"measures = R@5: it is AP already.*measures=\[A,B\]"):
        read("measures=AP", "measures=R@5")
    assert read("out=a", "out=b")["out"] == "b"


@pytest.mark.parametrize("text", ["? [a, b]\n: c\n", "text: " + "[" * 5000, "text: {" * 5000])
def test_a_file_that_is_not_a_configuration_is_a_mistake(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"^{file}: not YAML"):
        read(files=(str(file),))


def test_a_word_that_is_no_configuration_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a folder; expected key=value or a YAML file"):
        read(files=(str(tmp_path),))


def test_an_argument_nested_too_deeply_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"corpus = .*: nested too deeply"):
        load(Example, (), ("corpus={a: " + "[" * 5000, "out=o"))


def test_settings_of_the_execution_are_not_part_of_the_identity() -> None:
    one = load(Example, (), ("corpus=c", "out=o", "workers=1")).identity()
    two = load(Example, (), ("corpus=c", "out=p", "workers=2")).identity()
    assert one == two
    assert one != load(Example, (), ("corpus=c", "out=o", "text=x")).identity()


def test_a_resolved_configuration_loads_as_itself(tmp_path: Path) -> None:
    import json

    config = load(Example, (), ("corpus=c", "out=o", "loss=biir", "validation.d.listeners=a,b"))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.resolved()))
    assert load(Example, (str(file),)) == config


def test_the_reference_lists_every_key_with_type_and_default() -> None:
    rows = {row.key: row for row in reference(Example)}
    assert rows["loss.temperature"].default == "0.02"
    assert rows["corpus.path"].help == "Path of the file."
    assert rows["validation.ID.metrics"].type == "mapping to true | false"
    assert rows["out"].default == "required"


class One(Block):
    word = "path"
    path: str
    deep: bool = False


class Several(One):
    path: list[str]  # type: ignore[assignment]


def test_a_word_sets_the_field_that_a_verb_names(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("deep: true\n")
    one = load(One, *split_words(One, [str(file), "a b,c"]))
    assert (one.path, one.deep) == ("a b,c", True)
    several = load(Several, *split_words(Several, ["x,y", "deep=true", "z"]))
    assert (several.path, several.deep) == (["x,y", "z"], True)
    assert load(One, *split_words(One, ["path=x"])).path == "x"
    with pytest.raises(ConfigError, match="b: expected a single path, and a is one"):
        split_words(One, ["a", "b"])
    with pytest.raises(ConfigError, match="path=b: a sets path already; remove one of them"):
        split_words(One, ["a", "path=b"])
    assert split_words(Example, ["a.yaml", "b=1"]) == (["a.yaml"], ["b=1"])
    assert "A word without a key sets it." in next(iter(reference(One))).help


def test_a_former_spelling_of_a_key_is_read_and_stays_in_the_identity(tmp_path: Path) -> None:
    file = tmp_path / "fusion.yaml"
    file.write_text("index: [a, b]\nfusion: {kind: interpolate, normalise: z}\n")
    old, new = load(SearchConfig, [str(file)]), ["index=a,b", "fusion=interpolate"]
    assert old == load(SearchConfig, (), [*new, "fusion.normalize=z"])
    assert old == load(SearchConfig, (), [*new, "fusion.normalise=z"])
    assert old.identity()["fusion"] == {"kind": "interpolate", "normalise": "z", "weights": []}
    assert old.resolved()["fusion"]["normalize"] == "z"
    again = load(SearchConfig, [str(file)], ["fusion.normalize=none"])
    assert again.resolved()["fusion"]["normalize"] == "none"


def test_a_file_with_a_comma_in_its_name_is_one_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b.jsonl").touch()
    config = load(SearchConfig, (), ["index=x,a,b.jsonl,y", "fusion=rrf"])
    assert config.index == ("x", "a,b.jsonl", "y")
    index = load(IndexConfig, (), ["corpus=a,b.jsonl", "out=o"])
    assert index.corpus is not None and index.corpus.path == ("a,b.jsonl",)
    assert load(SearchConfig, (), ["index=[a,b.jsonl]", "fusion=rrf"]).index == ("a", "b.jsonl")


def test_mine_fuses_as_search_does_and_reads_its_former_keys() -> None:
    base = ["index=I,V", "queries=q", "qrels=j", "corpus=c", "out=O"]
    new = ["fusion=interpolate", "fusion.normalize=z", "fusion.weights=1,2"]
    old = load(MineConfig, (), [*base, "fusion=z", "weights=1,2"])
    assert old == load(MineConfig, (), [*base, *new]) == load(MineConfig, [old.resolved()])
    assert old.fusion == load(SearchConfig, (), ["index=I,V", "queries=q", "out=O", *new]).fusion
    former = {"fusion": "z", "weights": [1.0, 2.0]}
    assert former.items() <= old.identity().items()
    assert load(MineConfig, (), base).identity()["fusion"] == "rrf"
    moved = load(MineConfig, (), [*base, "fusion.constant=10"]).identity()
    assert moved["fusion"] == "rrf" and moved["constant"] == 10
