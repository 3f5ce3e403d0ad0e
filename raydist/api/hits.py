"""The ranking of one query, with texts: what a search shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from raydist.api import frames
from raydist.api.display import MARKS, html_table, text_table

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from raydist.protocols import TextStore
    from raydist.text.analyzer import Analyzer

_LENGTH = 120  # characters of a text that are shown


@dataclass(frozen=True, slots=True)
class Hit:
    """A document of a ranking.

    >>> Hit(rank=1, score=2.5, id="d7", text="a heron").id
    'd7'

    Attributes:
        rank: from 1.
        score: larger is better; what it means depends on the retriever.
        id: the document's.
        title: empty where there is none.
        text: empty where the index has no texts.
    """

    rank: int
    score: float
    id: str
    title: str = ""
    text: str = ""


class Hits(Sequence[Hit]):
    """The ranking of one query, best first; it shows itself as a table with the words marked.

    >>> hits = Hits("herons", [Hit(1, 0.5, "d7", "", "a grey heron")])
    >>> hits
    rank   score  id  text
       1  0.5000  d7  a grey *heron*
    >>> [hit.id for hit in hits]
    ['d7']

    Attributes:
        query: its text, or its id where the text is not known.
    """

    def __init__(self, query: str, hits: Sequence[Hit], analyzer: Analyzer | None = None) -> None:
        """Prepares a table.

        Args:
            query: its text.
            hits: best first.
            analyzer: of the index, so that the words that match are marked; English otherwise.
        """
        self.query = query
        self._hits = tuple(hits)
        self._analyzer = analyzer

    @classmethod
    def of(
        cls,
        query: str,
        doc_ids: Sequence[str],
        scores: Sequence[float],
        texts: TextStore | None = None,
        analyzer: Analyzer | None = None,
    ) -> Hits:
        """Returns the hits of a ranking, with their titles and texts if there is a store."""
        documents = texts.get(doc_ids) if texts is not None else [None] * len(doc_ids)
        hits = [
            Hit(rank, float(score), doc_id, *((d.title, d.text) if d is not None else ()))
            for rank, (doc_id, score, d) in enumerate(zip(doc_ids, scores, documents), 1)
        ]
        return cls(query, hits, analyzer)

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    @overload
    def __getitem__(self, rank: int) -> Hit: ...
    @overload
    def __getitem__(self, rank: slice) -> Hits: ...
    def __getitem__(self, rank: int | slice) -> Hit | Hits:
        if isinstance(rank, slice):
            return Hits(self.query, self._hits[rank], self._analyzer)
        return self._hits[rank]

    def to_arrow(self) -> pa.Table:
        """Returns a table: rank, score, id, title, text."""
        import pyarrow as pa

        names = ("rank", "score", "id", "title", "text")
        return pa.table({name: [getattr(hit, name) for hit in self] for name in names})

    def to_pandas(self) -> pandas.DataFrame:
        """Returns the table as a DataFrame of pandas."""
        return frames.to_pandas(self.to_arrow())

    def to_polars(self) -> Any:
        """Returns the table as a DataFrame of Polars."""
        return frames.to_polars(self.to_arrow())

    def __repr__(self) -> str:
        return text_table(*self._table()) if self._hits else "no results"

    def _repr_html_(self) -> str:
        return html_table(*self._table(), caption=self.query) if self._hits else "no results"

    def _table(self) -> tuple[list[str], list[list[object]]]:
        if not any(hit.title or hit.text for hit in self):
            return ["rank", "score", "id"], [[hit.rank, hit.score, hit.id] for hit in self]
        from raydist.text.passages import highlighted
        from raydist.text.spec import AnalyzerSpec

        analyzer = self._analyzer or AnalyzerSpec().build()

        def shown(text: str) -> str:
            return highlighted(text, self.query, analyzer, MARKS, _LENGTH) if text else ""

        titled = any(hit.title for hit in self)
        columns = ["rank", "score", "id", *(["title"] if titled else []), "text"]
        rows: list[list[object]] = []
        for hit in self:
            title = [shown(hit.title)] if titled else []
            rows.append([hit.rank, hit.score, hit.id, *title, shown(hit.text)])
        return columns, rows
