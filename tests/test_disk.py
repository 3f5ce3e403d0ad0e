"""Writing atomically: the old content or the new, and nothing beside it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raydist.disk import atomic, disk_errors, write_json
from raydist.errors import JobError


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "run.txt"
    target.write_text("old")
    with atomic(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["run.txt"]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "report"
    for name in ("old", "new"):
        with atomic(target) as partial:
            (partial / "figures").mkdir(parents=True)
            (partial / "figures" / name).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["report", "figures", "new"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("folder", [False, True])
def test_nothing_is_left_of_a_write_that_failed(
    tmp_path: Path, error: type[BaseException], folder: bool
) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), atomic(tmp_path / "a") as partial:
        if folder:
            partial.mkdir()
            partial = partial / "inside"
        partial.write_text("half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("folder", [False, True])
def test_what_another_process_wrote_in_the_meantime_can_stay(tmp_path: Path, folder: bool) -> None:
    def write(path: Path, text: str) -> None:
        if folder:
            path.mkdir()
            path = path / "text"
        path.write_text(text)

    with atomic(tmp_path / "a", replace=False) as slow:
        write(slow, "slow")
        with atomic(tmp_path / "a", replace=False) as quick:
            write(quick, "quick")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.read_text() for path in files] == ["quick"]


def test_two_writers_do_not_share_a_partial_file(tmp_path: Path) -> None:
    with atomic(tmp_path / "a") as one, atomic(tmp_path / "a") as other:
        assert one != other and one.parent == other.parent == tmp_path
        one.touch()
        other.touch()


def test_json_is_readable_and_ends_with_a_line_feed(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"path": Path("ü")})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "path": "ü"\n}\n'


def test_a_lack_of_permission_is_not_taken_for_a_full_disk() -> None:
    with (
        pytest.raises(JobError, match=r"^a.jsonl: permission denied; have it allowed"),
        disk_errors("b"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "a.jsonl")


def test_a_full_disk_says_what_to_do() -> None:
    refused = pytest.raises(JobError, match=r"writing /dev/full: the disk is full; make room")
    with refused, disk_errors("/dev/full"), open("/dev/full", "w") as file:
        file.write("x")
