"""Neighbours: raydist's stages, runs, encoders and collections in other libraries, and theirs here.

An edge beside the Python interface: one file for each library, which is imported by the file alone,
so that none is needed that is not used.

    from raydist.integrations.langchain import RaydistRetriever

    retriever = RaydistRetriever(index.bm25(), k=5)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


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
