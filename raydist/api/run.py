"""A run that shows itself, and becomes a data frame."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from raydist import records
from raydist.api import frames
from raydist.api.display import html_table, text_table
from raydist.api.hits import Hits
from raydist.errors import DataError, NotFoundError

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

_SHOWN = 10  # rows


class Run(records.Run):
    """A ranking for each query: an Arrow table `query_id, doc_id, score`, best document first.

    Everything in raydist that takes a run takes this one; it adds what a notebook wants.

    >>> run = Run.from_lists([("q1", ["d2", "d1"], [2.0, 0.5])])
    >>> run
    1 query, 2 results
    query  rank   score  id
    q1        1  2.0000  d2
    q1        2  0.5000  d1
    >>> run["q1"][0].id
    'd2'
    >>> len(run.to_pandas())
    2
    """

    __slots__ = ()

    @classmethod
    def of(cls, run: records.Run) -> Run:
        """Returns another run as one that shows itself."""
        return run if isinstance(run, Run) else cls.of_checked(run.table, run.tag)

    def __getitem__(self, query_id: str) -> Hits:
        """Returns the ranking of a query.

        Raises:
            NotFoundError: the run has no such query; it is a KeyError, too.
        """
        import pyarrow.compute as pc

        rows = self.table.filter(pc.equal(self.table["query_id"], query_id))
        if not rows.num_rows:
            raise NotFoundError(f"{query_id!r}: no query of this id in the run (run.query_ids)")
        return Hits.of(query_id, rows["doc_id"].to_pylist(), rows["score"].to_pylist())

    def __contains__(self, query_id: object) -> bool:
        return query_id in self.query_ids

    def to_arrow(self) -> pa.Table:
        """Returns the table: query_id, doc_id, score (float32)."""
        return self.table

    def to_pandas(self) -> pandas.DataFrame:
        """Returns the table as a DataFrame of pandas."""
        return frames.to_pandas(self.table)

    def to_polars(self) -> Any:
        """Returns the table as a DataFrame of Polars."""
        return frames.to_polars(self.table)

    def __repr__(self) -> str:
        return f"{self._summary()}\n{text_table(*self._rows())}{self._rest()}".rstrip()

    def _repr_html_(self) -> str:
        return html_table(*self._rows(), caption=self._summary()) + self._rest()

    def _summary(self) -> str:
        from raydist import log

        queries = log.count(len(self.query_ids) if len(self) else 0, "query")
        return f"{queries}, {log.count(len(self), 'result')}"

    def _rest(self) -> str:
        return f"\n… {len(self) - _SHOWN:,} more" if len(self) > _SHOWN else ""

    def _rows(self) -> tuple[list[str], list[list[object]]]:
        rows: list[list[object]] = []
        last, rank = None, 0
        for row in self.table.slice(0, _SHOWN).to_pylist():
            rank = rank + 1 if row["query_id"] == last else 1
            last = row["query_id"]
            rows.append([last, rank, row["score"], row["doc_id"]])
        return ["query", "rank", "score", "id"], rows


def read_run(path: str | os.PathLike[str], *, sort: bool = False) -> Run:
    """Returns a run from a file: TREC's six columns, MS MARCO's three, Parquet, JSON.

    >>> Run.from_lists([("q1", ["d2", "d1"], [2.0, 0.5])]).write("run.txt")
    >>> read_run("run.txt")["q1"][0].score
    2.0

    Args:
        path: the file.
        sort: order each query's documents by score; without it, another order is an error.

    Raises:
        DataError: a bad line, or rows that are not a ranking.
    """
    from raydist.data.readers import read_run as read
    from raydist.data.spec import RunSource

    if not os.fspath(path):
        raise DataError("run: the name of its file is empty")
    return Run.of(read(RunSource(path=os.fspath(path), sort=sort)))
