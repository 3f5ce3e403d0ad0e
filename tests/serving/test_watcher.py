from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydist.errors import ConfigError, DataError, JobError
from raydist.evaluation.registry import Candidate, promote, registered
from raydist.serving import watcher
from raydist.serving.watcher import ModelVersion, ModelWatcher, locate


class Toy:
    """A model that works unless its version says otherwise."""

    def __init__(self, version: ModelVersion) -> None:
        if version.name.startswith("unreadable"):
            raise DataError("half a file")
        self.version, self.retired = version.name, False

    async def check(self) -> None:
        if self.version.startswith("broken"):
            raise ValueError("scores are not numbers")

    def retire(self) -> None:
        self.retired = True


class Shelf:
    """A model whose version a test sets; a list gives one after another."""

    def __init__(self, *versions: str) -> None:
        self.versions = list(versions)

    def __call__(self) -> ModelVersion:
        version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        if version == "gone":
            raise DataError("no such folder")
        return ModelVersion("toy", version)


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    monkeypatch.setattr(watcher, "_SETTLE_S", 0.0)
    lines: list[dict[str, str]] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(record.getMessage()))

    logger, handler = logging.getLogger("raydist.access"), Recorder()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.setLevel(before)
    logger.removeHandler(handler)


def watch(shelf: Shelf, every_s: float = 0.0) -> ModelWatcher[Toy]:
    return ModelWatcher("toy", shelf, Toy, check=Toy.check, retire=Toy.retire, every_s=every_s)


def test_a_newer_model_is_used_and_the_older_one_retired(log: list[dict[str, str]]) -> None:
    shelf = Shelf("1")
    watched = watch(shelf)
    first = watched.model
    assert not asyncio.run(watched.look()) and watched.model is first and not first.retired
    shelf.versions = ["2"]
    assert asyncio.run(watched.look())
    assert watched.model.version == watched.version.name == "2" and first.retired
    assert [(line["event"], line["before"], line["now"]) for line in log] == [
        ("reloaded", "1", "2")
    ]


@pytest.mark.parametrize("bad", ["unreadable", "broken"])
def test_one_that_does_not_work_is_left_alone(bad: str, log: list[dict[str, str]]) -> None:
    shelf = Shelf("1")
    watched = watch(shelf)
    shelf.versions = [bad]
    for _ in range(3):
        assert not asyncio.run(watched.look())
    assert watched.model.version == "1" and not watched.model.retired
    assert [line["event"] for line in log] == ["kept"]  # tried once, not at every look
    shelf.versions = ["3"]
    assert asyncio.run(watched.look()) and watched.model.version == "3"


def test_a_folder_that_still_changes_or_is_gone_for_a_moment_waits() -> None:
    shelf = Shelf("1")
    watched = watch(shelf)
    shelf.versions = ["half", "2"]
    assert not asyncio.run(watched.look()) and watched.model.version == "1"
    shelf.versions = ["gone"]
    assert not asyncio.run(watched.look()) and watched.model.version == "1"
    shelf.versions = ["2"]
    assert asyncio.run(watched.look())


def test_it_watches_on_request() -> None:
    async def wait(every_s: float) -> str:
        shelf = Shelf("1")
        watched = watch(shelf, every_s)
        watched.start()
        watched.start()
        shelf.versions = ["2"]
        await asyncio.sleep(0.3)
        return watched.model.version

    assert asyncio.run(wait(0.01)) == "2"
    assert asyncio.run(wait(0.0)) == "1"


def test_whatever_fails_it_looks_again(log: list[dict[str, str]]) -> None:
    class Odd(Shelf):
        def __call__(self) -> ModelVersion:
            version = super().__call__()
            if version.name == "odd":
                raise ValueError("half a config.json")
            return version

    def end(model: Toy) -> None:
        raise RuntimeError("its threads do not end")

    async def wait() -> str:
        shelf = Odd("1", "odd", "2", "2", "odd", "3")
        watched = ModelWatcher("toy", shelf, Toy, check=Toy.check, retire=end, every_s=0.01)
        watched.start()
        async with asyncio.timeout(30):
            while len(log) < 6:
                await asyncio.sleep(0.01)
        return watched.model.version

    assert asyncio.run(wait()) == "3"
    events = [(line["event"], line.get("error", "")) for line in log]
    assert (
        events
        == [
            ("looked", "half a config.json"),
            ("reloaded", ""),
            ("looked", "its threads do not end"),
        ]
        * 2
    )


def test_a_folders_version_is_its_content(tiny_bert: Path, tmp_path: Path) -> None:
    link = tmp_path / "model"
    link.symlink_to(tiny_bert)
    before = locate(str(link), "")
    assert before == ModelVersion(str(link), locate(str(tiny_bert), "").name) and before.name
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny_bert.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    link.unlink()
    link.symlink_to(other)
    assert locate(str(link), "").name != before.name
    assert locate("Qwen/Qwen3-Reranker-0.6B", "") == ModelVersion("Qwen/Qwen3-Reranker-0.6B", "")


def test_a_registered_models_version_follows_its_alias(database: str, tmp_path: Path) -> None:
    folders = [tmp_path / "a model", tmp_path / "other"]
    for step, folder in enumerate(folders):
        folder.mkdir()
        values = {f"q{i}": 0.1 + 0.5 * step + 0.01 * i for i in range(10)}
        candidate = Candidate(
            name="toy", folder=folder, metric="nDCG@10", values=values, fingerprint=str(step)
        )
        assert promote(database, candidate).moved
        assert registered("models:/toy@champion", database) == (str(folder), str(step + 1))
        assert locate("models:/toy@champion", database) == ModelVersion(str(folder), str(step + 1))
    assert registered("models:/toy/1", database) == (str(folders[0]), "1")
    with pytest.raises(JobError, match="other"):
        registered("models:/other@champion", database)
    with pytest.raises(ConfigError, match="expected models:/NAME@ALIAS"):
        registered("models:/toy", database)
    with pytest.raises(ConfigError, match="registry=none"):
        locate("models:/toy@champion", "")
