"""Configuration of `raydist reproduce`, and its pages: figures, and the benchmarks of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

import raydist
from raydist.config.base import Block, execution
from raydist.config.benchmark import BenchmarkConfig
from raydist.config.load import load, read_yaml

PAGES = Path(raydist.__file__).parent / "reproductions"


class ReproduceConfig(Block):
    """Measures published figures again."""

    word: ClassVar[str | None] = "name"

    name: str | None = Field(None, min_length=1)
    """A page; without one all are listed."""
    data: str | None = Field(None, min_length=1)
    """The folder that the collections lie in; if not given, the first that has them of those in
    `RAYDIST_COLLECTIONS`, or of `collections` and `../shared/data`, seen from the working folder
    and from the checkout."""
    out: str | None = execution(None)
    """Folder to keep indexes, rankings and reports in, as `raydist benchmark` does."""
    format: Literal["table", "markdown", "json"] = execution("table")
    """Form of the table on standard output."""


class Page(Block):
    """Figures, where they come from, and the benchmark that measures them."""

    title: str
    """Collection and systems."""
    kind: Literal["published", "recorded"]
    """Printed by others, or measured of a ranking that another program made."""
    source: str
    """Where the figures are from."""
    obtain: str
    """How the files are made of what can be downloaded."""
    files: dict[str, str] = Field(min_length=1)
    """File below the folder of collections -> its SHA-256."""
    left_out: list[str] = []
    """Figures of the same source that are not measured, and why."""
    suite: dict[str, Any]
    """Keys of `raydist benchmark`; `{data}` is the folder of collections."""
    expected: dict[str, dict[str, dict[str, float]]]
    """Collection -> system -> measure -> figure, to four decimals."""

    @model_validator(mode="after")
    def _measured(self) -> Page:
        config = self.benchmark("DATA", "OUT")
        for collection, systems in self.expected.items():
            for system, figures in systems.items():
                wrong = set(figures) - set(config.measures)
                if collection not in config.collections or system not in config.systems or wrong:
                    raise ValueError(f"expected.{collection}.{system}: is not measured")
        return self

    def benchmark(self, data: str, out: str) -> BenchmarkConfig:
        """Returns the benchmark, of collections in the folder `data`."""
        fixed = {"out": out, "tracking": {"uri": "none"}}
        return load(BenchmarkConfig, [{**_fill(self.suite, data), **fixed}])


def read_pages() -> dict[str, Page]:
    """Returns all pages by name."""
    return {file.stem: load(Page, [read_yaml(str(file))]) for file in sorted(PAGES.glob("*.yaml"))}


def _fill(value: Any, data: str) -> Any:
    """Replaces `{data}` by the folder of collections."""
    if isinstance(value, Mapping):
        return {key: _fill(item, data) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, data) for item in value]
    return value.replace("{data}", data) if isinstance(value, str) else value
