"""Nodes that see no folder of the driver meet on the object store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydist import storage
from raydist.stores.nodes import Area
from raydist.stores.objects import Objects


@pytest.fixture
def driver(s3: str) -> Iterator[Path]:
    with storage.writing(f"{s3}/out") as path:
        path.mkdir()
        (path / ".job.json").write_text(json.dumps({"kind": "k", "config": 1, "inputs": {}}))
        yield path
        (path / "manifest.json").write_text("{}")


def elsewhere(area: Area, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Area:
    """Returns the area as a node sees it that does not see the driver's folder."""
    monkeypatch.setenv("RAYDIST_CACHE", str(cache))
    return area._replace(token="none")


def test_what_a_node_puts_the_driver_and_other_nodes_copy(
    driver: Path, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = driver / "shards"
    area = Area.of(shards)
    assert area is not None and area.here == area.root
    with monkeypatch.context() as patch:
        node = elsewhere(area, patch, tmp_path / "node")
        folder = node.here / "out/shards"
        assert (tmp_path / "node") in folder.parents
        (folder / "00000").mkdir(parents=True)
        (folder / "00000/data").write_bytes(b"x" * 100)
        (folder / "00000.done").write_text("{}")
        node.put("out/shards/00000", "out/shards/00000.done")
    assert Area.of(shards).uri == area.uri  # type: ignore[union-attr]
    area.fetch_shards(shards, ["00000"])
    assert (shards / "00000/data").read_bytes() == b"x" * 100 and (shards / "00000.done").exists()
    (driver / "run.arrow").write_text("run")
    area.offer(["out/run.arrow", "out/shards/00000", "out/none"])
    with monkeypatch.context() as patch:
        node = elsewhere(area, patch, tmp_path / "other")
        assert node.fetch("out/run.arrow").read_text() == "run"
        assert (node.fetch("out/shards") / "00000/data").read_bytes() == b"x" * 100
        assert list(node.here.rglob("*.part")) == []
    assert Objects(f"{s3}/.out.work").names()


def test_the_area_is_gone_once_the_output_is_published(s3: str) -> None:
    with storage.writing(f"{s3}/out") as path:
        path.mkdir()
        area = Area.of(path / "shards")
        assert area is not None
        (path / "manifest.json").write_text("{}")
        area.put("out/manifest.json")
        assert Objects(f"{s3}/.out.work").names()
    names = Objects(s3).names()
    assert "out/manifest.json" in names and not any(".work" in name for name in names)


def test_jobs_of_other_configurations_and_local_folders_have_other_areas_or_none(
    driver: Path, tmp_path: Path
) -> None:
    first = Area.of(driver / "shards")
    (driver / ".job.json").write_text(json.dumps({"kind": "k", "config": 2, "inputs": {}}))
    second = Area.of(driver / "shards")
    assert first is not None and second is not None and first.uri != second.uri
    assert Area.of(tmp_path) is None
