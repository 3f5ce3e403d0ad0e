"""Configuration in a few lines: a spec of a room, a verb made of specs, files and arguments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from annotated_types import Ge, Gt

from raydist.config.base import Flat, Verb
from raydist.config.load import load
from raydist.config.schema import reference
from raydist.errors import ConfigError
from raydist.spec import EXECUTION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """Looks at every vector."""

    kind: Literal["exact"] = "exact"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Follows links between near vectors."""

    kind: Literal["graph"] = "graph"
    links: Annotated[int, Ge(2)] = 32
    """Neighbours of a node."""
    sharpness: Annotated[float, Gt(0)] = 1.0
    """Exponent of the weights in the draw."""
    depth: int | None = None
    """Levels; follows from the size if not given."""
    threads: Annotated[int, Ge(1), EXECUTION] = 1
    """Threads that build it."""

    def __post_init__(self) -> None:
        if self.depth is not None and self.depth > self.links:
            raise ValueError(f"depth = {self.depth}: expected links = {self.links} at most")


class Example(Verb):
    """Finds the nearest vectors."""

    primary: ClassVar[str | None] = "out"

    out: str
    """File to write."""
    search: Exact | Graph = Exact()
    """How vectors are found."""
    further: dict[str, Exact | Graph] = {}
    """Further searches, by name."""


def test_a_verb_is_read_from_files_and_arguments(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text("out: o\nsearch: {kind: graph, links: 8}\n")
    config = load(Example, [str(file)], ["search.depth=3", "further.all=exact"])
    assert config.search == Graph(links=8, depth=3) and config.further == {"all": Exact()}
    assert config.resolved()["search"]["links"] == 8


class GraphExample(Verb):
    """Links near vectors."""

    out: str
    """File to write."""
    graph: Flat[Graph]
    tag: str = ""
    """Name of the graph."""


class SmallGraphExample(GraphExample):
    """Links few vectors."""

    links: Annotated[int, Ge(2)] = 4
    """Neighbours of a node, few."""


def test_the_fields_of_a_flat_spec_are_those_of_the_verb() -> None:
    config = load(GraphExample, [{"out": "o", "links": 8}], ["threads=3", "depth=2"])
    assert config.graph == Graph(links=8, depth=2, threads=3)
    *_, before, after = config.resolved()
    assert (before, after) == ("threads", "tag")
    assert config.identity() == load(GraphExample, (), ["out=p", "links=8", "depth=2"]).identity()
    (row,) = [row for row in reference(GraphExample) if row.key == "links"]
    assert (row.default, row.help) == ("32", "Neighbours of a node.")
    with pytest.raises(ConfigError, match=r"^sharpness = '0': input should be greater than 0$"):
        load(GraphExample, (), ["out=o", "sharpness=0"])
    with pytest.raises(ConfigError, match=r"^depth = 40: expected links = 32 at most$"):
        load(GraphExample, (), ["out=o", "depth=40"])


def test_a_verb_can_declare_a_field_of_a_flat_spec_anew() -> None:
    assert load(SmallGraphExample, (), ["out=o"]).graph == Graph(links=4)
    assert load(GraphExample, (), ["out=o"]).graph == Graph()
    rows = {row.key: row.help for row in reference(SmallGraphExample)}
    assert list(rows) == [row.key for row in reference(GraphExample)]
    assert rows["links"] == "Neighbours of a node, few."


def test_settings_of_the_execution_are_not_part_of_the_identity() -> None:
    one, two = (load(Example, (), ["out=o", "search=graph", f"search.threads={n}"]) for n in (1, 2))
    assert one != two and one.identity() == two.identity()


def test_mistakes_are_reported_with_the_key_the_value_and_the_nearest_key() -> None:
    words = ["out=o", "search=graph", "search.link=3", "search.sharpness=0", "further.a.kind=tree"]
    words += ["further.b=exact", "further.b.links=3"]
    with pytest.raises(ConfigError) as caught:
        load(Example, (), words)
    assert set(str(caught.value).splitlines()) == {
        "search.link: unknown key; did you mean search.links?",
        "search.sharpness = '0': input should be greater than 0",
        "further.a.kind = 'tree': expected one of exact, graph",
        "further.b.links: unknown key; it belongs to kind=graph",
    }
    with pytest.raises(ConfigError, match="search: depth = 40: expected links = 32 at most"):
        load(Example, (), ["out=o", "search=graph", "search.depth=40"])


def test_the_reference_takes_its_help_from_the_docstrings() -> None:
    rows = list(reference(Example))
    (row,) = [row for row in rows if row.key == "search.links"]
    assert (row.type, row.default, row.help) == ("integer", "32", "[graph] Neighbours of a node.")
    kinds = {row.type: row.help for row in rows if row.key == "search.kind"}
    assert kinds == {
        "exact": "Looks at every vector.",
        "graph": "Follows links between near vectors.",
    }
