"""An output is new, continued, complete or refused, and complete once it has a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raydist.artefact import Artefact, Output
from raydist.errors import ArtifactError, ConfigError, DataError, JobError
from raydist.manifest import read_manifest


@dataclass
class Settings:
    """What a verb is asked for."""

    value: int = 1

    def identity(self) -> dict[str, Any]:
        return {"value": self.value}

    def resolved(self) -> dict[str, Any]:
        return {"value": self.value, "workers": 2}

    def lenient(self) -> tuple[tuple[str, ...], ...]:
        return ()


@contextmanager
def opened(
    artefact: Artefact, out: Path, value: int = 1, *, dry_run: bool = False
) -> Iterator[Output]:
    settings, inputs = Settings(value), {"corpus": "abc"}
    with artefact.open(
        out, settings, inputs=lambda: inputs, plan=f"write {out}", dry_run=dry_run
    ) as output:
        yield output


def test_a_verb_plans_writes_and_finds_its_output_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, artefact = tmp_path / "out", Artefact("thing", scratch=("work-*",))
    with opened(artefact, folder, dry_run=True) as output:
        assert output.done and not folder.exists()
    with opened(artefact, folder) as output:
        assert not output.done
        (output.folder / "work-1").mkdir()
        output.finish(documents=3)
    with opened(artefact, folder) as output:
        assert output.done
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "manifest.json"]
    assert json.loads((folder / "config.json").read_text()) == Settings().resolved()
    assert capsys.readouterr().err.splitlines() == [
        f"would write {folder}",
        f"{folder}: already built with the same configuration",
    ]


def test_a_file_has_its_manifest_beside_it(tmp_path: Path) -> None:
    run, artefact = tmp_path / "run.txt", Artefact("thing", is_file=True)
    for _ in range(2):
        with opened(artefact, run) as output:
            assert not output.done
            output.path.write_text("1 Q0 a 1 1 t\n")
            output.finish()
        assert read_manifest(tmp_path / "run.txt.raydist", ["thing"])["out"] == "run.txt"
        run.unlink()  # then it is written again
    run.mkdir()
    with pytest.raises(ConfigError, match="is a folder"), opened(artefact, run):
        pass


def test_a_file_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text("mine")
    refused = pytest.raises(ConfigError, match=r"no run\.txt\.raydist beside it says")
    with refused, opened(Artefact("thing", is_file=True), tmp_path / "run.txt"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run.txt"]


def test_a_report_is_replaced_whole_but_nothing_else_is(tmp_path: Path) -> None:
    folder, artefact = tmp_path / "report", Artefact("report", replaces=True)
    for value in (1, 2):
        with opened(artefact, folder, value) as output:
            (output.folder / f"part-{value}").touch()
            output.finish()
    manifest = read_manifest(folder)
    assert manifest["config"] == {"value": 2} and not (folder / "part-1").exists()
    assert "out" not in manifest
    with pytest.raises(DataError), opened(artefact, folder, 3):
        raise DataError("stopped")
    assert read_manifest(folder)["config"] == {"value": 2}
    with pytest.raises(ArtifactError, match="is a report, expected other"):
        Artefact("other", replaces=True).check(folder)


@pytest.mark.parametrize("progress", [False, True])
def test_a_failed_command_leaves_what_a_restart_continues_from(
    tmp_path: Path, progress: bool
) -> None:
    artefact = Artefact("thing", progress="shards/*.done")
    with pytest.raises(DataError), opened(artefact, tmp_path / "out") as output:
        (output.folder / "shards").mkdir()
        if progress:
            (output.folder / "shards/00000.done").touch()
        raise DataError("line 7")
    assert (tmp_path / "out").exists() == progress
    with opened(artefact, tmp_path / "out", 1 if progress else 2) as output:
        assert output.state == ("resumed" if progress else "new")


def test_partial_files_of_a_killed_command_are_removed(tmp_path: Path) -> None:
    artefact = Artefact("thing", is_file=True)
    with pytest.raises(KeyboardInterrupt), opened(artefact, tmp_path / "a[1].txt"):
        (tmp_path / ".a[1].txt.0123.part").touch()
        raise KeyboardInterrupt
    with opened(artefact, tmp_path / "a[1].txt") as output:
        assert output.state == "resumed"
    assert not list(tmp_path.glob("*.part"))


def begin(folder: Path, **config: object) -> Output:
    return Output.open(folder, kind="thing", config=config, inputs={"corpus": "abc"})


def test_a_folder_is_complete_once_it_has_a_manifest(tmp_path: Path) -> None:
    out = begin(tmp_path / "a/b", k1=0.9)
    assert out.state == "new"
    with pytest.raises(ArtifactError, match="interrupted"):
        read_manifest(out.folder)
    assert begin(tmp_path / "a/b", k1=0.9).state == "resumed"
    out.finish(documents=3)
    manifest = read_manifest(out.folder, ["thing"])
    assert manifest["documents"] == 3 and manifest["config"] == {"k1": 0.9}
    assert begin(tmp_path / "a/b", k1=0.9).state == "complete"


def test_the_result_of_another_configuration_is_refused_and_the_difference_shown(
    tmp_path: Path,
) -> None:
    begin(tmp_path / "a", k1=0.9, deep={"b": 1}).finish()
    with pytest.raises(ArtifactError, match=r"(?s)deep.b: 1 -> 2.*k1: 0.9 -> 1.2"):
        begin(tmp_path / "a", k1=1.2, deep={"b": 2})
    with pytest.raises(ArtifactError, match='content of corpus: "abc" -> "xyz"'):
        Output.open(
            tmp_path / "a",
            kind="thing",
            config={"k1": 0.9, "deep": {"b": 1}},
            inputs={"corpus": "xyz"},
        )


SHARDS = Artefact("thing", progress="shards/*.done")


@pytest.mark.parametrize(
    ("error", "shards", "kept"),
    [
        (DataError("line 7"), 0, False),
        (DataError("line 7"), 2, False),
        (ConfigError("k = 3"), 1, False),
        (JobError("a worker died"), 0, False),
        (JobError("a worker died"), 2, True),
        (KeyboardInterrupt(), 0, False),
        (KeyboardInterrupt(), 1, True),
    ],
)
def test_another_configuration_finds_an_unfinished_output_refused_or_emptied(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    shards: int,
    kept: bool,
) -> None:
    folder = tmp_path / "out"
    with pytest.raises(type(error)), opened(SHARDS, folder) as output:
        (output.folder / "shards").mkdir()
        for number in range(shards):
            (output.folder / f"shards/{number}.done").touch()
        raise error
    if kept:
        refusal = rf"has finished {shards} shards? here: run that one again(?s:.*)value: 1 -> 2"
        with pytest.raises(ArtifactError, match=refusal), opened(SHARDS, folder, 2):
            pass
        with opened(SHARDS, folder) as output:
            assert output.state == "resumed"
        return
    with opened(SHARDS, folder, 2) as output:
        assert output.state == "new" and not (folder / "shards").exists()
        output.finish()
    assert read_manifest(folder)["config"] == {"value": 2}
    said = "discards %s of another configuration, which failed: %s"
    discarded = said % ("2 shards" if shards == 2 else "1 shard", error) if shards else ""
    assert discarded in capsys.readouterr().err


def test_progress_after_a_mistake_is_continued_and_then_kept_from_others(tmp_path: Path) -> None:
    with pytest.raises(DataError), opened(SHARDS, tmp_path / "out") as output:
        (output.folder / "shards").mkdir()
        (output.folder / "shards/0.done").touch()
        raise DataError("line 7")
    with pytest.raises(KeyboardInterrupt), opened(SHARDS, tmp_path / "out") as output:
        assert output.state == "resumed"
        raise KeyboardInterrupt
    refused = pytest.raises(ArtifactError, match="interrupted command of another configuration")
    with refused, opened(SHARDS, tmp_path / "out", 2):
        pass


def test_what_a_failed_command_leaves_to_be_looked_at_stands_in_nobodys_way(tmp_path: Path) -> None:
    artefact = Artefact("run", progress="checkpoints/*", evidence="record")
    with pytest.raises(JobError), opened(artefact, tmp_path / "out") as output:
        (output.folder / "record").touch()
        raise JobError("not a number")
    assert (tmp_path / "out/record").exists()
    with opened(artefact, tmp_path / "out", 2) as output:
        assert output.state == "new" and not (output.folder / "record").exists()


def test_the_manifest_of_a_file_that_was_deleted_refuses_nobody(tmp_path: Path) -> None:
    run, artefact = tmp_path / "run.txt", Artefact("thing", is_file=True)
    for value in (1, 2):
        with opened(artefact, run, value) as output:
            output.path.write_text("1 Q0 a 1 1 t\n")
            output.finish()
        assert read_manifest(tmp_path / "run.txt.raydist")["config"] == {"value": value}
        run.unlink()


def test_an_unfinished_output_of_another_kind_is_refused_unless_it_failed(tmp_path: Path) -> None:
    other = Artefact("other")
    with pytest.raises(KeyboardInterrupt), opened(SHARDS, tmp_path / "out"):
        raise KeyboardInterrupt
    refused = pytest.raises(ArtifactError, match="holds a thing, this command writes a other")
    with refused, opened(other, tmp_path / "out"):
        pass


def test_foreign_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        begin(tmp_path / "file/below")
    with pytest.raises(ArtifactError, match="other files"):
        begin(tmp_path)


@pytest.mark.parametrize("left", [b"", b"[1, 2", b"\xff{}", b"3"])
def test_a_damaged_record_of_an_interrupted_command_is_named(tmp_path: Path, left: bytes) -> None:
    begin(tmp_path / "a")
    (tmp_path / "a" / ".job.json").write_bytes(left)
    with pytest.raises(ArtifactError, match=r"a/\.job\.json is corrupted.*delete"):
        begin(tmp_path / "a")


@pytest.mark.parametrize("stops_at", [".job.json", "config.json"])
def test_an_output_whose_opening_was_cut_short_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_at: str
) -> None:
    options: dict[str, Any] = {"kind": "thing", "config": {}, "inputs": {}, "resolved": {"a": 1}}

    def killed(partial: str, target: Path) -> None:
        if Path(target).name == stops_at:
            raise KeyboardInterrupt
        Path(partial).rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            Output.open(tmp_path / "a", **options)
    state = Output.open(tmp_path / "a", **options).state
    assert state == ("resumed" if stops_at == "config.json" else "new")
    assert json.loads((tmp_path / "a/config.json").read_text()) == {"a": 1}


def test_a_link_to_a_folder_that_does_not_exist_yet_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("new/folder")
    Output.open(tmp_path / "link", kind="test", config={}, inputs={}).finish()
    assert (tmp_path / "link").is_symlink()
    assert read_manifest(tmp_path / "new/folder")["kind"] == "test"
