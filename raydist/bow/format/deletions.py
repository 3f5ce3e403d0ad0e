"""Deletions of a segment: which of its documents are deleted, and what its statistics lose by them.

A segment's files never change. What is deleted from it is a folder of its own, of one generation,
which the manifest names beside the segment; a later deletion writes another folder that holds the
earlier ones too. Files::

    live                       a bit per document, 1 where it is not deleted (kernels/bits.py)
    terms, terms.groups        the deleted documents' terms, each with how many of them have it

and in the header their number, how many have tokens, and their tokens and postings. So the cost of
a deletion is that of the deleted documents, and a search of the rest has exact statistics.

Legend: N documents of the segment, T terms, Q terms to look up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raydist.bow.format import dictionary
from raydist.bow.format.files import Files, seal, write
from raydist.bow.format.writing import StringsWriter
from raydist.kernels.bits import Bits

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Losses:
    """What the statistics of a segment lose by deleted documents.

    Attributes:
        documents: number of deleted documents.
        nonempty: those with at least one token.
        tokens: their lengths together.
        postings: number of their postings.
        terms: their terms, in ascending byte order.
        df_T: how many of them have each term, at least 1.
    """

    documents: int
    nonempty: int
    tokens: int
    postings: int
    terms: pa.LargeBinaryArray
    df_T: Array

    def __add__(self, other: Losses) -> Losses:
        """Returns the losses by the documents of both, which have none in common."""
        names = pa.concat_arrays([self.terms, other.terms])
        terms = pc.unique(names)
        terms = terms.take(pc.sort_indices(terms))
        places = pc.index_in(names, value_set=terms).to_numpy()
        df_T = np.zeros(len(terms), np.int64)
        np.add.at(df_T, places, np.concatenate([self.df_T, other.df_T]))
        return Losses(
            documents=self.documents + other.documents,
            nonempty=self.nonempty + other.nonempty,
            tokens=self.tokens + other.tokens,
            postings=self.postings + other.postings,
            terms=terms,
            df_T=df_T,
        )


class Deletions:
    """A segment's deletions, opened and checked.

    Attributes:
        folder: the one they were opened from.
        live: the documents that are not deleted.
        documents: number of deleted documents; nonempty, tokens and postings as in `Losses`.
        dictionary: the bytes of the terms and their groups.
        size: T, the number of distinct terms.
        files: its files.
    """

    def __init__(self, folder: Path, documents: int) -> None:
        """Opens the deletions of a segment that has so many documents.

        Raises ArtifactError where the folder is incomplete, corrupted or of a newer version.
        """
        self.folder = folder
        self.files = Files(folder, "deletions")
        self.files.verify()
        header = self.files.header
        self.documents: int = header["documents"]
        self.nonempty: int = header["nonempty"]
        self.tokens: int = header["tokens"]
        self.postings: int = header["postings"]
        self.size: int = header["terms"]
        self.live = Bits(self.files.array("live"), documents)
        groups = self.files.array("terms.groups", np.uint64).reshape(-1, 2)
        self.dictionary = self.files.array("terms"), groups

    def df(self, terms: Sequence[bytes]) -> Array:
        """Returns how many of the deleted documents have each term, int64 [Q]."""
        return self.lookup(terms)[:, 2].astype(np.int64)

    def lookup(self, terms: Sequence[bytes]) -> Array:
        """Finds terms: uint64 [Q, 4], as `dictionary.find` returns them."""
        return dictionary.look_up(*self.dictionary, self.size, terms)

    def losses(self) -> Losses:
        """Returns what the segment's statistics lose by them."""
        terms, numbers_TK, _ = dictionary.decode(*self.dictionary, 0, self.size)
        return Losses(
            documents=self.documents,
            nonempty=self.nonempty,
            tokens=self.tokens,
            postings=self.postings,
            terms=terms,
            df_T=numbers_TK[:, 0].astype(np.int64),
        )


def write_deletions(folder: Path, live: Bits, losses: Losses) -> None:
    """Writes a segment's deletions, all of them, into a new folder."""
    folder.mkdir(parents=True)
    with open(folder / "live", "wb", buffering=0) as out:
        write(out, live.data)
    terms = StringsWriter(folder, "terms", 1)
    terms.append(losses.terms, losses.df_T[:, None])
    terms.close()
    about = {
        "documents": losses.documents,
        "nonempty": losses.nonempty,
        "tokens": losses.tokens,
        "postings": losses.postings,
        "terms": len(losses.terms),
    }
    assert live.size - live.count == losses.documents
    seal(folder, ["live", "terms", "terms.groups"], about, "deletions")
