"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _beside(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no {name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def collections() -> Path:
    """The folder of real test collections beside the checkout."""
    return _beside("data")


@pytest.fixture(scope="session")
def oracle() -> Path:
    """The folder of Lucene's recorded answers beside the checkout."""
    return _beside("oracle")
