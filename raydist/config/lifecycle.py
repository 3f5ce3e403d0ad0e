"""Configuration of `raydist merge` and `raydist verify`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from raydist.bow.spec import MergeSpec
from raydist.config.base import Block, Flat, Verb
from raydist.data.spec import Paths


class MergeConfig(Verb):
    """Rewrites the segments of an index without deleted documents."""

    word: ClassVar[str | None] = "out"

    out: str = Field(min_length=1)
    """The index."""
    merging: Flat[MergeSpec]


class VerifyConfig(Block):
    """Reads and checks a whole output."""

    word: ClassVar[str | None] = "path"

    path: Paths = Field(min_length=1)
    """Folders and files that raydist wrote, or their URIs."""
