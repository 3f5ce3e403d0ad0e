"""Configuration of `raydist merge`, `verify`, `status`, `inspect`, `ls` and `diff`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from raydist.bow.spec import MergeSpec
from raydist.config.base import Block, Flat, Verb, execution
from raydist.data.spec import Paths
from raydist.spec import Reads


class MergeConfig(Verb):
    """Rewrites the segments of an index or of vectors without deleted documents."""

    word: ClassVar[str | None] = "out"

    out: str = Field(min_length=1)
    """The index, or the vectors."""
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


class InspectConfig(Block):
    """Shows what an index knows of itself, of a term, or of a document."""

    word: ClassVar[str | None] = "index"

    index: Annotated[str, Reads("output")] = Field(min_length=1)
    """A bag-of-words index, or its URI."""
    term: str | None = Field(None, min_length=1)
    """A word: how often its term occurs, and where."""
    doc: str | None = Field(None, min_length=1)
    """A document's id: its terms."""
    analyzed: bool = True
    """With `term`: the index's analyzer makes the term; false looks it up as it is given."""
    k: int = Field(10, ge=0)
    """Rows of a list; 0 shows all."""
    format: Literal["text", "json"] = execution("text")
    """Form of the answer on standard output."""

    @model_validator(mode="after")
    def _one_subject(self) -> InspectConfig:
        if self.term is not None and self.doc is not None:
            raise ValueError("give one of term= and doc=, or none of them for the whole index")
        return self


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
