"""A real collection that every machine with Python has: the documentation in its source code.

The first sentence of a docstring is a query; the words of the public name and the rest of the
docstring are the document that answers it. Sources are parsed, never imported, so that nothing
runs; the same Python gives the same bytes.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from raydist.data.files import PathLike
from raydist.disk import atomic
from raydist.errors import DataError

PREFIX = "docstrings:"
"""Begins the paths of this collection: `docstrings:numpy+scipy` adds two packages."""

_VERSION = 2
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages"}
_SKIPPED |= {"ensurepip", "__pycache__", "pydoc_data"}
_LEAST_SUMMARY_WORDS = 4
_LEAST_REST_WORDS = 15
_NO_SUMMARY = re.compile(r"(?i)(args|arguments|parameters|returns|notes?|examples?|usage)\b\W*$")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])(?=\s)|\n\s*\n")
_NEGATIVES = 7


@dataclass(frozen=True, slots=True)
class Entry:
    """A public name's documentation: dotted name, first sentence, and the rest."""

    name: str
    summary: str
    rest: str

    @property
    def text(self) -> str:
        """The document: the words of the name, then the rest of the docstring."""
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[._]+", " ", self.name)
        return f"{words}\n{self.rest}"


def modules(packages: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Returns `(dotted name, source file)` of modules, sorted by name.

    Modules with a leading underscore count: packages define much of their interface there.

    Args:
        packages: installed packages to add to the standard library.

    Raises:
        DataError: one is not installed, or is no package of Python sources.
    """
    roots = [("", Path(sysconfig.get_paths()["stdlib"]))]
    for package in packages:
        roots.append((package, _package_folder(package)))
    paths: dict[str, str] = {}
    for prefix, root in roots:
        for folder, inner, files in os.walk(root):
            inner[:] = sorted(d for d in inner if d not in _SKIPPED and not d.startswith("."))
            relative = Path(folder).relative_to(root).parts
            if prefix == "" and relative and "__init__.py" not in files:
                inner[:] = []
                continue
            for file in files:
                if not file.endswith(".py"):
                    continue
                stem = file.removesuffix(".py")
                parts = filter(None, [prefix, *relative, "" if stem == "__init__" else stem])
                if dotted := ".".join(parts):
                    paths[dotted] = os.path.join(folder, file)
    return sorted(paths.items())


def _package_folder(package: str) -> Path:
    try:
        named = all(part.isidentifier() for part in package.split("."))
        spec = importlib.util.find_spec(package) if named else None
    except (ModuleNotFoundError, ValueError):  # of a dotted name, of a module without a spec
        spec = None
    if spec is None:
        raise DataError(f"{PREFIX}{package}: no Python package {package!r} is installed")
    folders = list(spec.submodule_search_locations or ())
    if not folders:
        raise DataError(f"{PREFIX}{package}: {package!r} is a single module, expected a package")
    return Path(folders[0])


def extract(module: tuple[str, str]) -> list[Entry]:
    """Returns the documented public names of a module, in source order."""
    name, path = module
    try:
        source = Path(path).read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return []  # no docstring with a rest; parsing takes most of the time
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    entries = []
    for dotted, docstring in _docstrings(tree, name):
        summary, rest = _split_summary(docstring)
        if len(summary.split()) < _LEAST_SUMMARY_WORDS or _NO_SUMMARY.match(summary):
            continue
        if len(rest.split()) >= _LEAST_REST_WORDS:
            entries.append(Entry(dotted, summary, rest))
    return entries


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    assert isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    docstring = ast.get_docstring(node)
    if docstring:
        yield name, docstring
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            not child.name.startswith("_")
        ):
            yield from _docstrings(child, f"{name}.{child.name}")


def _split_summary(docstring: str) -> tuple[str, str]:
    """Returns the first sentence on one line and the rest, without half surrogates."""
    clean = docstring.encode("utf-8", "replace").decode().strip()
    end = _END_OF_SENTENCE.search(clean)
    cut = len(clean) if end is None else end.start()
    return " ".join(clean[:cut].split()), clean[cut:].strip()


Mapped = Callable[
    [Callable[[tuple[str, str]], list[Entry]], Sequence[tuple[str, str]]], Iterable[list[Entry]]
]
"""Maps a function over modules, in any order."""


def collect(packages: Iterable[str] = (), run: Mapped = map) -> list[Entry]:
    """Returns the collection's entries sorted by name; summaries and rests occur once.

    Args:
        packages: installed packages to add to the standard library.
        run: maps `extract` over the modules, in any order.
    """
    entries = [entry for some in run(extract, modules(packages)) for entry in some]
    unique: list[Entry] = []
    names: set[str] = set()
    texts: set[str] = set()
    for entry in sorted(entries, key=lambda e: (e.name, e.summary, e.rest)):
        parts = {entry.summary.lower(), entry.rest}
        if entry.name in names or parts & texts:
            continue
        names.add(entry.name)
        texts |= parts
        unique.append(entry)
    return unique


def write(folder: PathLike, entries: Sequence[Entry] | None = None) -> Path:
    """Writes the collection in BEIR's form and returns its folder.

    Files: `corpus.jsonl`, `queries.jsonl`, `qrels.txt` (all pairs); `train/` and `test/` with
    `queries.jsonl` and `qrels.txt` each (80 % and 20 % by a hash of the id); `train.jsonl`, the
    training pairs with 7 negatives in FlagEmbedding's form.

    Args:
        folder: the folder, which need not exist.
        entries: what `collect` returned; the standard library if None.

    Raises:
        DataError: there is no documentation (a Python without sources).
    """
    entries = collect() if entries is None else entries
    if not entries:
        raise DataError(f"no docstrings: Python at {sys.prefix} has no source files")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    documents = [{"_id": e.name, "title": "", "text": e.text} for e in entries]
    _write_lines(target / "corpus.jsonl", map(_json, documents))
    train = [e for e in entries if _hash(e.name) % 5]
    parts = {"": entries, "train": train, "test": [e for e in entries if not _hash(e.name) % 5]}
    for part, chosen in parts.items():
        (target / part).mkdir(exist_ok=True)
        rows = [{"_id": f"q:{e.name}", "text": e.summary} for e in chosen]
        _write_lines(target / part / "queries.jsonl", map(_json, rows))
        _write_lines(target / part / "qrels.txt", (f"q:{e.name} 0 {e.name} 1" for e in chosen))
    _write_lines(target / "train.jsonl", map(partial(_sample, entries), train))
    return target


def cached(packages: Sequence[str] = (), run: Mapped = map) -> Path:
    """Returns the folder of a collection, written once for each state of the sources.

    Args:
        packages: as for `collect`.
        run: as for `collect`.

    Raises:
        DataError: the cache (`RAYDIST_CACHE`, by default `~/.cache/raydist`) cannot be written.
    """
    sources = modules(packages)
    state = [(name, os.path.getsize(path)) for name, path in sources]
    name = f"docstrings-{_hash(json.dumps([_VERSION, state])):014x}"
    root = os.environ.get("RAYDIST_CACHE") or os.path.join(
        os.path.expanduser("~"), ".cache/raydist"
    )
    folder = Path(root) / name
    if (folder / "train.jsonl").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic(folder, replace=False) as unfinished:
            unfinished.mkdir()  # fails at once where the cache cannot be written
            write(unfinished, collect(packages, run))
    except OSError as error:
        raise DataError(
            f"{root}: cannot write to the cache ({error}); set RAYDIST_CACHE to another folder"
        ) from error
    return folder


def _sample(entries: Sequence[Entry], entry: Entry) -> str:
    """Returns a training line: the pair, and negatives from elsewhere in the collection."""
    start = _hash(f"negatives of {entry.name}")
    chosen: list[str] = []
    for i in range(len(entries)):
        other = entries[(start + i * 7919) % len(entries)]
        if len(chosen) == _NEGATIVES:
            break
        if other.name != entry.name and other.text not in chosen:
            chosen.append(other.text)
    return _json({"query": entry.summary, "pos": [entry.text], "neg": chosen})


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def _json(row: object) -> str:
    return json.dumps(row, ensure_ascii=False)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.writelines(f"{line}\n" for line in lines)
