"""Damage to one file of a folder, as by disks and interrupted copies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

WAYS = ["flip", "flip", "flip", "truncate", "grow", "remove", "empty"]


def damage(data: bytes, how: str, where: float, bit: int) -> bytes | None:
    """Returns the damaged content; None if the file is gone."""
    at = int(where * len(data))
    if how == "flip":
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] if data else b"\0"
    if how == "truncate":
        return data[:at]
    if how == "grow":
        return data + data[at:] + b"\n"
    return None if how == "remove" else b""


def damaged_copy(
    folder: Path, room: Path, name: Path, how: str, where: float, bit: int
) -> tuple[bytes, bytes | None]:
    """Makes `room` a copy of a folder with one file damaged; returns its bytes before and after."""
    before = (folder / name).read_bytes()
    after = damage(before, how, where, bit)
    shutil.rmtree(room, ignore_errors=True)
    shutil.copytree(folder, room, copy_function=os.link)
    (room / name).unlink()
    if after is not None:
        (room / name).write_bytes(after)
    return before, after
