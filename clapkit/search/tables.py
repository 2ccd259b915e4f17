"""Tables of an index: Parquet for everyone, and beside each its rows as they lie in memory, to find a few of many."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clapkit.errors import ClapkitError, IndexMismatchError

MAPPED_SUFFIX = ".arrow"
Values = np.ndarray | pd.api.extensions.ExtensionArray


class Table:
    """A Parquet file, of which single rows are looked up in the Arrow file beside it, which is mapped, not read.

    Args:
        file: written by :func:`write_table`.

    Attributes:
        names: of the columns.
        dtypes: of the columns, by name.

    Raises:
        IndexMismatchError: missing or damaged.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._parquet = pq.ParquetFile(file, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(file, error, "build the index again") from None
        self.names: list[str] = list(self._parquet.schema_arrow.names)
        self.dtypes = dict(self._parquet.schema_arrow.empty_table().to_pandas().dtypes)

    def __len__(self) -> int:
        return self._parquet.metadata.num_rows

    def rows(self, places: np.ndarray, names: list[str] | None = None) -> pd.DataFrame:
        """The rows at ``(n,)`` places, in their order; all columns, or those named."""
        return pd.DataFrame(self.columns(places, names), copy=False)

    def columns(self, places: np.ndarray, names: list[str] | None = None) -> dict[str, Values]:
        """:meth:`rows` without the cost of a table."""
        wanted = pa.array(np.asarray(places, dtype=np.int64))
        return {name: self._column(name, wanted) for name in (self.names if names is None else names)}

    def whole(self, columns: list[str] | None = None) -> pd.DataFrame:
        """All rows."""
        return self._parquet.read(columns).to_pandas()

    def is_whole(self) -> bool:
        """Whether the rows in the Arrow file are those of the Parquet file."""
        return self._mapped.to_pandas().equals(self.whole())

    def _column(self, name: str, places: pa.Array) -> Values:
        taken, dtype = self._mapped[name].take(places), self.dtypes[name]
        values = taken.to_numpy() if dtype.kind in "iuf" else taken.to_pandas().array
        if values.dtype == dtype:
            return values
        return self._mapped.select([name]).take(places).to_pandas()[name].array  # slower, but knows pandas' own types

    @cached_property
    def _mapped(self) -> pa.Table:
        file = self._file.with_suffix(MAPPED_SUFFIX)
        if not file.exists():  # made by a clapkit that did not write it
            return self._parquet.read().combine_chunks()
        try:
            mapped = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
            if len(mapped) != len(self):
                raise pa.ArrowInvalid(f"{len(mapped)} rows in place of {len(self)}")
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(file, error, f"delete it, {self._file.name} holds the same") from None
        return mapped


def check_columns(table: pd.DataFrame) -> None:
    """Refuse a column that Parquet cannot hold.

    Raises:
        ClapkitError: names the column, whose values are of several types or of a strange one.
    """
    for name in table:
        try:
            pa.array(table[name], from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError):
            raise ClapkitError(
                f"column '{name}': has values of several types; make all of them numbers, or all of them texts."
            ) from None


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table that :class:`Table` reads."""
    columns = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(columns, file)
    with pa.ipc.new_file(str(file.with_suffix(MAPPED_SUFFIX)), columns.schema) as rows:
        rows.write_table(columns.combine_chunks())


def _damaged(file: Path, error: Exception, remedy: str) -> IndexMismatchError:
    return IndexMismatchError(f"{file}: damaged ({str(error).splitlines()[0]}); {remedy}.")
