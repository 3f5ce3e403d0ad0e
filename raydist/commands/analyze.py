"""Shows the terms that an analyzer makes of a text, joined by a space.

    raydist analyze text="The quick brown fox's den"
    raydist analyze analyzer.language=de text="Die Häuser am Fluß"
    raydist analyze input=lines.txt index=IDX

A file is cut at line feeds only; each line gives one line, an empty one stays empty.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from raydist.artefact import planned
from raydist.config.base import Flags
from raydist.config.index import AnalyzeConfig
from raydist.errors import ConfigError, DataError
from raydist.text.analyzer import Analyzer

Config = AnalyzeConfig


def run(config: AnalyzeConfig, flags: Flags) -> None:
    """Prints a line of terms per text."""
    analyzer = analyzer_of(config)
    if config.input is not None and not Path(config.input).is_file():
        raise DataError(f"input = {config.input!r}: no such file")
    if planned(flags.dry_run, f"analyze {config.input or 'a text'} with {analyzer}"):
        return
    if config.text is not None:
        _print([" ".join(analyzer.tokens(config.text))])
        return
    assert config.input is not None
    for lines in _lines(Path(config.input)):
        _print(_terms(analyzer, lines))


def analyzer_of(config: AnalyzeConfig) -> Analyzer:
    """Returns the analyzer of a configuration, or of the index that it names."""
    if config.index is None:
        return config.analyzer.build()
    from raydist.manifest import read_manifest

    built = read_manifest(config.index, ["bow-index"]).get("analyzer")
    if built is None:
        raise ConfigError(f"index = {config.index}: has no analyzer: it holds weighted terms")
    return Analyzer.from_dict(built)


def _lines(path: Path) -> Iterator[list[bytes]]:
    """Yields a file's lines in batches; they end at line feeds, whatever else they hold."""
    with open(path, "rb") as source:
        while batch := source.readlines(1 << 22):
            yield [line.removesuffix(b"\n") for line in batch]


def _terms(analyzer: Analyzer, lines: list[bytes]) -> list[str]:
    import pyarrow as pa

    lexicon = analyzer.lexicon()
    terms, lengths = lexicon(pa.array(lines, pa.large_binary()))
    names = [name.decode() for name in lexicon.terms.strings().to_pylist()]
    words = iter([names[term] for term in terms.tolist()])
    return [" ".join(next(words) for _ in range(length)) for length in lengths.tolist()]


def _print(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()
