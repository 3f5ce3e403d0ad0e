"""Neighbours: raydist's stages, runs, encoders and collections in other libraries, and theirs here.

An edge beside the Python interface: one file for each library, which is imported by the file alone,
so that none is needed that is not used.

    from raydist.integrations.langchain import RaydistRetriever

    retriever = RaydistRetriever(index.bm25(), k=5)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from raydist.errors import ConfigError


@contextlib.contextmanager
def needed(package: str) -> Iterator[None]:
    """Makes an import that fails in the block name the package to install.

    >>> with needed("a-neighbour"):
    ...     import a_neighbour
    Traceback (most recent call last):
    ModuleNotFoundError: No module named 'a_neighbour': pip install a-neighbour
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install {package}", name=error.name) from None


def expect(value: Any, kind: Any, what: str) -> None:
    """Refuses an object of another kind than a function takes.

    >>> expect("q1", dict, "judgements")
    Traceback (most recent call last):
    raydist.errors.ConfigError: str: expected judgements

    Raises:
        ConfigError: it is another.
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{type(value).__name__}: expected {what}")
