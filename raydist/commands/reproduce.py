"""Measures published figures again, and says which agree to the fourth decimal.

    raydist reproduce
    raydist reproduce cacm
    raydist reproduce cacm data=FOLDER out=bench

Without a name the pages are listed. A page has figures, their source, and the benchmark that
measures them; nothing is downloaded. Its collection has to lie in `data=`, in a folder that
`RAYDIST_COLLECTIONS` names, or in `collections` or `../shared/data`; where it does not, the message
says what to download, and from where. The exit code is 1 if a figure differs.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import raydist
from raydist import log
from raydist.artefact import planned
from raydist.cli import execute
from raydist.commands.benchmark import run_suite
from raydist.config.base import Flags
from raydist.config.benchmark import BenchmarkConfig
from raydist.config.reproduce import Page, ReproduceConfig, read_pages
from raydist.errors import ConfigError, DataError
from raydist.evaluation.report import lay_out

if TYPE_CHECKING:
    from raydist.evaluation.suite import Suite

Config = ReproduceConfig
VARIABLE = "RAYDIST_COLLECTIONS"
DIGITS = 4
_USUAL = ("collections", "../shared/data")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a page, and what was measured."""

    collection: str
    system: str
    measure: str
    figure: float
    measured: float

    @property
    def agrees(self) -> bool:
        """Whether both are the same to the fourth decimal."""
        return round(self.measured, DIGITS) == round(self.figure, DIGITS)

    def cells(self) -> list[str]:
        """Returns the cells of its line."""
        numbers = [f"{value:.{DIGITS}f}" for value in (self.figure, self.measured)]
        agrees = "yes" if self.agrees else "NO"
        return [self.collection, self.system, self.measure, *numbers, agrees]


def run(config: ReproduceConfig, flags: Flags) -> int:
    """Prints the table of a page, or the list of pages; returns 1 if a figure differs."""
    pages = read_pages()
    if config.name is None:
        _list(config, pages)
        return 0
    if config.name not in pages:
        near = difflib.get_close_matches(config.name, pages, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(pages)}"
        raise ConfigError(f"name = {config.name!r}: no such page; {hint}")
    page = pages[config.name]
    folder = find(page, config)
    if planned(flags.dry_run, f"measure {page.title}, in {folder}"):
        return 0
    figures = measure(page, folder, config.out)
    _print(config, page, figures)
    return 0 if all(each.agrees for each in figures) else 1


def measure(page: Page, folder: Path, out: str | None = None) -> list[Figure]:
    """Runs the benchmark of a page; returns each of its figures with what was measured.

    Args:
        page: the page.
        folder: the collections lie in.
        out: where the benchmark is kept; nowhere if None.
    """
    suites: list[Suite] = []

    def keep(config: BenchmarkConfig, flags: Flags) -> None:
        if (suite := run_suite(config, flags)) is not None:
            suites.append(suite)

    with tempfile.TemporaryDirectory(prefix="raydist-reproduce-") as scratch:
        place = out or str(Path(scratch, "benchmark"))
        execute(SimpleNamespace(run=keep), page.benchmark(str(folder), place), Flags())
    return [
        Figure(row.collection, row.system, row.measure, figure, row.mean)
        for row in _rows(suites[0])
        for figure in [page.expected.get(row.collection, {}).get(row.system, {}).get(row.measure)]
        if figure is not None
    ]


def _rows(suite: Suite) -> Iterator[SimpleNamespace]:
    for collection, report in suite.reports.items():
        for row in report.rows:
            yield SimpleNamespace(
                collection=collection, system=row.run, measure=row.measure, mean=row.mean
            )


def find(page: Page, config: ReproduceConfig) -> Path:
    """Returns the folder that the collections of a page lie in.

    A file of another content than was measured is named, and used.

    Raises:
        DataError: there is none.
    """
    for folder in places(config):
        if all((folder / name).is_file() for name in page.files):
            for name, digest in page.files.items():
                if (other := _sha256(folder / name)) != digest:
                    log.warn(
                        f"{folder / name}: is not the file that the figures are of (SHA-256 "
                        f"{other[:12]}..., expected {digest[:12]}...)"
                    )
            return folder
    tried = ", ".join(map(str, places(config)))
    files = "\n".join(f"  {name}  SHA-256 {digest}" for name, digest in page.files.items())
    how = "\n".join(f"  {line}" for line in page.obtain.splitlines())
    raise DataError(
        f"{config.name}: its collection is not in {tried}; it has to be made once, in a folder "
        f"that data= or {VARIABLE} names:\n{files}\n{how}"
    )


def places(config: ReproduceConfig) -> list[Path]:
    """Returns the folders that collections may lie in, best first."""
    if config.data is not None:
        return [Path(config.data).expanduser()]
    if named := os.environ.get(VARIABLE):
        return [Path(each).expanduser() for each in named.split(os.pathsep) if each]
    checkout = Path(raydist.__file__).resolve().parents[1]
    return [Path(each) for each in _USUAL] + [checkout / each for each in _USUAL]


def _sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _list(config: ReproduceConfig, pages: dict[str, Page]) -> None:
    """Prints a line per page: its name, its title, and whether its collection is there."""
    rows = []
    for name, page in pages.items():
        have = any(all((each / f).is_file() for f in page.files) for each in places(config))
        rows.append([name, "yes" if have else "no", page.kind, page.title])
    if config.format == "json":
        keys = ("name", "present", "figures", "title")
        print(json.dumps([dict(zip(keys, row)) for row in rows], indent=1))
        return
    print(lay_out(["page", "present", "figures", "measures"], rows, 4, config.format))
    log.say("raydist reproduce PAGE measures one")


def _print(config: ReproduceConfig, page: Page, figures: list[Figure]) -> None:
    """Prints the table and what belongs to it."""
    if config.format == "json":
        rows = [{**asdict(each), "agrees": each.agrees} for each in figures]
        print(json.dumps({"page": config.name, "source": page.source, "figures": rows}, indent=1))
        return
    header = ["collection", "system", "measure", page.kind, "measured", "agrees"]
    print(lay_out(header, [each.cells() for each in figures], 3, config.format))
    log.say(f"{page.kind}: {page.source}")
    for each in page.left_out:
        log.say(f"left out: {each}")
    wrong = [each for each in figures if not each.agrees]
    log.say(
        f"{config.name}: {len(figures) - len(wrong)} of {log.count(len(figures), 'figure')} agree "
        "to the fourth decimal"
    )
