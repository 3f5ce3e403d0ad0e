"""Damage to one file of a folder, as by disks and interrupted copies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

WAYS = ["flip", "flip", "flip", "truncate", "grow", "remove", "empty"]


@dataclass(frozen=True)
class Damage:
    """What happens to which file.

    Attributes:
        which: a number that chooses among a folder's files.
        how: one of `WAYS`.
        where: the place in the file, 0 to 1.
        bit: the bit that is flipped.
    """

    which: int
    how: str
    where: float
    bit: int

    def copy(
        self, folder: Path, target: Path, chosen: Callable[[Path], bool] = lambda name: True
    ) -> tuple[Path, bool]:
        """Makes `target` a copy of a folder with one of the chosen files damaged.

        Returns:
            The file's path in the folder, and whether its content is another now.
        """
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        names = [name for path in paths if chosen(name := path.relative_to(folder))]
        name = names[self.which % len(names)]
        before = (folder / name).read_bytes()
        after = self.of(before)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target, copy_function=os.link)
        (target / name).unlink()
        if after is not None:
            (target / name).write_bytes(after)
        return name, after != before

    def of(self, data: bytes) -> bytes | None:
        """Returns the damaged content; None if the file is gone."""
        at = int(self.where * len(data))
        if self.how == "flip":
            return data[:at] + bytes([data[at] ^ 1 << self.bit]) + data[at + 1 :] if data else b"\0"
        if self.how == "truncate":
            return data[:at]
        if self.how == "grow":
            return data + data[at:] + b"\n"
        return None if self.how == "remove" else b""


damages = st.builds(
    Damage,
    which=st.integers(0, 999),
    how=st.sampled_from(WAYS),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
