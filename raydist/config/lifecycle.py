"""Configuration of `raydist merge`, `verify`, `status`, `ls` and `diff`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from raydist.bow.spec import MergeSpec
from raydist.config.base import Block, Flat, Verb, execution
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


class StatusConfig(Block):
    """Says what outputs are."""

    word: ClassVar[str | None] = "path"

    path: Paths = Field(min_length=1)
    """Folders and files that raydist wrote, or their URIs."""
    format: Literal["text", "json"] = execution("text")
    """Form of the answer on standard output."""


class LsConfig(Block):
    """Lists what lies in a folder."""

    word: ClassVar[str | None] = "path"

    path: str = Field(".", min_length=1)
    """A folder, or its URI."""
    format: Literal["text", "json"] = execution("text")
    """Form of the answer on standard output."""


class DiffConfig(Block):
    """Compares the configurations of two outputs."""

    word: ClassVar[str | None] = "path"

    path: Paths = Field(min_length=2, max_length=2)
    """Two outputs: the old one, then the new one."""
    format: Literal["text", "json"] = execution("text")
    """Form of the answer on standard output."""
