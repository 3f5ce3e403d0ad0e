"""Where the machine code of kernels is cached, by the content of their sources; without numba.

A command that asks what is missing has not imported numba yet: see kernels/ahead.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_IMPORT = re.compile(r"^(?:from|import) (raydist[\w.]*)(?: import (\([^)]*\)|.*))?", re.MULTILINE)


def folder_of(module: str) -> Path:
    """Returns the folder of the machine code of a module's kernels; it may not exist."""
    return _base(os.environ.get("NUMBA_CACHE_DIR", "")) / _sources_hash(module)


def is_cached(module: str, function: str) -> bool:
    """Returns whether there is machine code of a kernel, or can be none."""
    folder = folder_of(module)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return True
    return not os.access(folder, os.W_OK) or any(folder.rglob(f"*.{function}-*.nbi"))


@lru_cache
def _base(shared: str) -> Path:
    """Returns the folder of all caches: NUMBA_CACHE_DIR, the user's own, or beside the package.

    It holds machine code, so a folder that others can write to is used only on request.
    """
    if shared:
        return Path(shared)
    beside = Path(__file__).with_name("__pycache__")
    own = Path(os.environ.get("RAYDIST_CACHE") or Path.home() / ".cache" / "raydist") / "kernels"
    for place in (own, beside):
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = place.stat()
            private = status.st_uid == os.getuid() and not status.st_mode & 0o022
            if (private or place == beside) and os.access(place, os.W_OK):
                return place
    return beside


@lru_cache
def copied(folder: Path, source: Path) -> Path:
    """Returns a copy of a source file in the cache: numba keys machine code by the file's path."""
    copy = folder / source.name
    try:
        if not copy.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{source.name}.{os.getpid()}"
            partial.write_bytes(source.read_bytes())
            # Not `atomic`: what kernels import decides which machine code is theirs.
            os.replace(partial, copy)
    except OSError:  # nothing can be written: numba chooses a folder itself
        return source
    return copy


@lru_cache
def _sources_hash(module: str) -> str:
    """Returns 16 digits of the sources of a module and of what it imports of this package."""
    digest = hashlib.blake2b(digest_size=8)
    seen, waiting = {module}, [module]
    while waiting:
        spec = importlib.util.find_spec(waiting.pop())
        if spec is None or spec.origin is None:
            continue
        source = Path(spec.origin).read_bytes()
        digest.update(source)
        fresh = sorted(set(_imports(source.decode())) - seen)
        seen.update(fresh)
        waiting += fresh
    return f"kernels-{digest.hexdigest()}"


def _imports(source: str) -> Iterator[str]:
    """Yields the modules of this package that a source file imports, `from` a package or not."""
    for name, names in _IMPORT.findall(source):
        yield name
        spec = importlib.util.find_spec(name)
        for place in (spec and spec.submodule_search_locations) or ():
            for each in re.findall(r"\w+", names):
                if Path(place, f"{each}.py").is_file() or Path(place, each).is_dir():
                    yield f"{name}.{each}"
