"""Configuration in a few lines: a spec of a room, a verb made of specs, files and arguments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from annotated_types import Ge, Gt

from raydist.config.base import Verb
from raydist.config.load import load
from raydist.config.schema import reference
from raydist.errors import ConfigError
from raydist.spec import EXECUTION


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """Looks at every vector."""

    kind: Literal["exact"] = "exact"
    """Every vector."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Follows links between near vectors."""

    kind: Literal["graph"] = "graph"
    """Links."""
    links: Annotated[int, Ge(2)] = 32
    """Neighbours of a node."""
    sharpness: Annotated[float, Gt(0)] = 1.0
    """Of the draw."""
    depth: int | None = None
    """Levels; chosen by the size if not given."""
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
    """More searches, by name."""


def test_a_verb_is_read_from_files_and_arguments(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text("out: o\nsearch: {kind: graph, links: 8}\n")
    config = load(Example, [str(file)], ["search.depth=3", "further.all=exact"])
    assert config.search == Graph(links=8, depth=3) and config.further == {"all": Exact()}
    assert config.resolved()["search"]["links"] == 8


def test_how_to_run_does_not_count_as_what_is_made() -> None:
    one, two = (load(Example, (), ["out=o", "search=graph", f"search.threads={n}"]) for n in (1, 2))
    assert one != two and one.identity() == two.identity()


def test_mistakes_are_told_with_the_key_the_value_and_the_nearest_key() -> None:
    words = ["out=o", "search=graph", "search.link=3", "search.sharpness=0", "further.a.kind=tree"]
    with pytest.raises(ConfigError) as caught:
        load(Example, (), words)
    assert set(str(caught.value).splitlines()) == {
        "search.link: unknown key; did you mean search.links?",
        "search.sharpness = '0': input should be greater than 0",
        "further.a.kind = 'tree': expected one of exact, graph",
    }
    with pytest.raises(ConfigError, match="search: depth = 40: expected links = 32 at most"):
        load(Example, (), ["out=o", "search=graph", "search.depth=40"])


def test_the_reference_reads_the_docstrings_below_the_fields() -> None:
    (row,) = [row for row in reference(Example) if row.key == "search.links"]
    assert (row.type, row.default, row.help) == ("integer", "32", "[graph] Neighbours of a node.")
