"""Parquet tables of an index, of which only the asked rows are read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clapkit.errors import ClapkitError, IndexMismatchError

GROUP_ROWS = 65_536
"""Rows that are read together."""
KEPT_GROUPS = 32


class Table:
    """A Parquet file by row number.

    Args:
        file: written by :func:`write_table`.

    Attributes:
        names: of the columns.
        dtypes: of the columns, by name.

    Raises:
        IndexMismatchError: missing or damaged.
    """

    def __init__(self, file: Path) -> None:
        try:
            self._parquet = pq.ParquetFile(file, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise IndexMismatchError(
                f"{file}: damaged ({str(error).splitlines()[0]}); build the index again."
            ) from None
        self.names: list[str] = list(self._parquet.schema_arrow.names)
        self.dtypes = dict(self._parquet.schema_arrow.empty_table().to_pandas().dtypes)
        self._group = lru_cache(KEPT_GROUPS)(self._read_group)

    def __len__(self) -> int:
        return self._parquet.metadata.num_rows

    def rows(self, places: np.ndarray, names: list[str] | None = None) -> pd.DataFrame:
        """The rows at ``(n,)`` places, in their order; all columns, or those named."""
        return pd.DataFrame(self.arrays(places, names), copy=False)

    def arrays(self, places: np.ndarray, names: list[str] | None = None) -> dict[str, np.ndarray]:
        """:meth:`rows` without the cost of a table."""
        names = self.names if names is None else names
        places = np.asarray(places, dtype=np.int64)
        if not len(places):
            empty = self._parquet.schema_arrow.empty_table().to_pandas()
            return {name: empty[name].to_numpy() for name in names}
        order = np.argsort(places // GROUP_ROWS, kind="stable")
        groups, first = np.unique(places[order] // GROUP_ROWS, return_index=True)
        read = [self._group(group) for group in groups]
        wanted = np.split(order, first[1:])  # of each group
        found = {}
        for name in names:
            values = np.empty(len(places), np.result_type(*(columns[name].dtype for columns in read)))
            for columns, where in zip(read, wanted, strict=True):
                values[where] = columns[name][places[where] % GROUP_ROWS]
            found[name] = values
        return found

    def whole(self, columns: list[str] | None = None) -> pd.DataFrame:
        """All rows."""
        return self._parquet.read(columns).to_pandas()

    def _read_group(self, group: int) -> dict[str, np.ndarray]:
        table = self._parquet.read_row_group(int(group)).to_pandas()
        return {name: table[name].to_numpy() for name in table}


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
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file, row_group_size=GROUP_ROWS)
