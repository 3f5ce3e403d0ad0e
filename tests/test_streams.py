"""Outputs that are no plain files: devices and FIFOs are written to, links are followed."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raydist import storage
from raydist.artefact import Artefact
from raydist.cli import main
from raydist.disk import atomic
from raydist.errors import ConfigError


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device of our own, like /dev/null: that one belongs to everybody."""
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.write_bytes(b"")
    except OSError as error:  # not root, or a file system without devices
        pytest.skip(f"no device can be made here: {error}")
    return path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"d{i}", "text": f"text {i}"} for i in range(5)]
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("q.tsv").write_text("1\ttext 2\n")
    Path("run.txt").write_text("1 Q0 d2 1 2.5 t\n1 Q0 d1 2 1.5 t\n")
    return tmp_path


def test_a_device_is_written_to_and_stays_one(data: Path, device: Path) -> None:
    with atomic(device) as partial:
        partial.write_text("x")
        assert partial.parent != device.parent
    with storage.writing(str(device)) as path:
        assert path == device and [p.name for p in data.glob(".*")] == []
    assert main(["convert", "in=run.txt", f"out={device}", "from=run", "to=run"]) in (0, 2)
    assert main(["index", "corpus=c.jsonl", "out=idx"]) == 0
    assert main(["search", "index=idx", "queries=q.tsv", f"out={device}"]) == 0
    assert main(["index", "corpus=c.jsonl", f"out={device}"]) == 2
    assert stat.S_ISCHR(device.stat().st_mode)
    with pytest.raises(ConfigError, match="is a device or FIFO"):
        Artefact("run", is_file=True).check(device)


def test_a_fifo_is_written_to(data: Path) -> None:
    fifo = data / "fifo"
    os.mkfifo(fifo)
    assert main(["index", "corpus=c.jsonl", "out=idx"]) == 0
    received: list[str] = []
    thread = threading.Thread(target=lambda: received.append(fifo.read_text()))
    thread.start()
    assert main(["search", "index=idx", "queries=q.tsv", "k=1", f"out={fifo}"]) == 0
    thread.join(10)
    assert received[0].startswith("1 Q0 d2 1 ") and stat.S_ISFIFO(fifo.stat().st_mode)


def test_the_standard_output_can_be_named(data: Path) -> None:
    assert main(["index", "corpus=c.jsonl", "out=idx"]) == 0
    words = ["search", "index=idx", "queries=q.tsv", "k=1", "out=/dev/stdout"]
    result = subprocess.run(
        [sys.executable, "-m", "raydist", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    assert result.stdout.startswith("1 Q0 d2 1 ")


def test_links_are_followed(data: Path) -> None:
    (data / "elsewhere").mkdir()
    link, folder = data / "link.txt", data / "folder"
    link.symlink_to("elsewhere/real.txt")
    folder.symlink_to("elsewhere/idx")
    with atomic(link) as partial:
        partial.write_text("one")
    with atomic(link) as partial:
        partial.write_text("two")
    assert link.is_symlink() and (data / "elsewhere/real.txt").read_text() == "two"
    (data / "elsewhere/idx").mkdir()
    assert main(["index", "corpus=c.jsonl", f"out={folder}"]) == 0
    assert folder.is_symlink() and (data / "elsewhere/idx/manifest.json").is_file()
    with atomic(folder) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert folder.is_symlink() and [p.name for p in folder.iterdir()] == ["new"]


def test_disks_and_sockets_are_refused(tmp_path: Path) -> None:
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(tmp_path / "socket"))
    with (
        pytest.raises(ConfigError, match="socket: is a socket, expected"),
        atomic(tmp_path / "socket"),
    ):
        pass
    bound.close()
    disk = tmp_path / "disk"
    try:
        os.mknod(disk, 0o600 | stat.S_IFBLK, os.makedev(7, 250))
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    with pytest.raises(ConfigError, match="is a block device"), storage.writing(str(disk)):
        pass
