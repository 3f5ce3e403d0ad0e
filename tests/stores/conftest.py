"""A bucket of each kind."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URI of an empty bucket, with a cache of its own."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    monkeypatch.setenv("RAYDIST_CACHE", str(tmp_path / "cache"))
    return f"memory://{uuid.uuid4().hex}"
