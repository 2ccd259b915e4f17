"""Parquet tables of an index, of which only the asked rows are read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clapkit.errors import IndexMismatchError

GROUP_ROWS = 65_536
"""Rows that are read together."""
KEPT_GROUPS = 32


class Table:
    """A Parquet file by row number.

    Args:
        file: written by :func:`write_table`.

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
        self._group = lru_cache(KEPT_GROUPS)(self._read_group)

    def __len__(self) -> int:
        return self._parquet.metadata.num_rows

    def rows(self, places: np.ndarray) -> pd.DataFrame:
        """The rows at ``(n,)`` places, in their order."""
        places = np.asarray(places, dtype=np.int64)
        groups = places // GROUP_ROWS
        if not len(places):
            return self._parquet.schema_arrow.empty_table().to_pandas()
        if (groups == groups[0]).all():
            return self._group(groups[0]).take(places % GROUP_ROWS).reset_index(drop=True)
        parts = [self._group(group).take(places[groups == group] % GROUP_ROWS) for group in np.unique(groups)]
        order = np.concatenate([np.flatnonzero(groups == group) for group in np.unique(groups)])
        return pd.concat(parts).take(np.argsort(order)).reset_index(drop=True)

    def whole(self, columns: list[str] | None = None) -> pd.DataFrame:
        """All rows."""
        return self._parquet.read(columns).to_pandas()

    def _read_group(self, group: int) -> pd.DataFrame:
        return self._parquet.read_row_group(int(group)).to_pandas()


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table that :class:`Table` reads."""
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file, row_group_size=GROUP_ROWS)
