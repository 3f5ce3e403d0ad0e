"""An index of three documents, and CACM with its index."""

from __future__ import annotations

from pathlib import Path

import pytest

import raydist as rd

CORPUS = {
    "d1": "A heron waits in the shallows for fish.",
    "d2": {"title": "Canals", "text": "Boats carry coal past herons, and sometimes fish."},
    "d3": {"title": "Kingfisher", "text": "It dives for fish."},
}


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> rd.Index:
    """The index of `CORPUS`."""
    return rd.index(CORPUS, tmp_path_factory.mktemp("neighbours") / "idx")


@pytest.fixture(scope="session")
def cacm(collections: Path) -> rd.Collection:
    """CACM: 3,204 documents, 52 judged queries."""
    return rd.collection(collections / "cacm")


@pytest.fixture(scope="session")
def cacm_index(cacm: rd.Collection, tmp_path_factory: pytest.TempPathFactory) -> rd.Index:
    """The index of CACM."""
    return rd.index(cacm.corpus, tmp_path_factory.mktemp("cacm") / "idx")
