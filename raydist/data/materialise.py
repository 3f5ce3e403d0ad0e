"""A Dataset of Ray as Parquet files, in its order, so that it is read as any other corpus."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from raydist.data.files import filesystem
from raydist.data.formats.names import Naming
from raydist.data.formats.parquet import columns_of, extra_of
from raydist.errors import DataError

if TYPE_CHECKING:
    import ray.data

_ROWS = 8192  # of a file; what a file holds depends on the rows alone, not on Ray's blocks


def materialise(dataset: ray.data.Dataset, folder: str, naming: Naming) -> None:
    """Writes the id, title and text of each row; the same rows make the same files.

    The rows pass through this process, one file at a time.

    Args:
        dataset: any that has the columns of a corpus.
        folder: a path or URI that every worker sees; what it holds is replaced.
        naming: own names of the columns.

    Raises:
        DataError: a column is missing or of another type, or there are no rows.
    """
    where, name = filesystem(folder)
    clear(folder)
    where.create_dir(name, recursive=True)
    options = dataset.context.execution_options
    before, options.preserve_order = options.preserve_order, True
    try:
        batches = dataset.iter_batches(batch_size=_ROWS, batch_format="pyarrow")
        number = -1
        for number, batch in enumerate(batches):
            columns = columns_of("the Dataset", batch.schema, naming)
            extra_of("the Dataset", batch.schema, naming)
            names = {*columns.values(), *(each.name for each in naming.columns)}
            table = batch.select(sorted(names)).replace_schema_metadata(None)
            _write(where, posixpath.join(name, f"{number:06}.parquet"), table.combine_chunks())
    finally:
        options.preserve_order = before
    if number < 0:
        raise DataError("the Dataset has no rows")


def _write(where: pa.fs.FileSystem, path: str, table: pa.Table) -> None:
    with where.open_output_stream(path) as out:
        pq.write_table(table, out, compression="lz4")


def clear(folder: str) -> None:
    """Removes what `materialise` wrote, if anything."""
    where, name = filesystem(folder)
    if where.get_file_info(name).type == pa.fs.FileType.Directory:
        where.delete_dir(name)
