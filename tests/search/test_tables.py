"""Rows of a table come back in the asked order and type, from however many groups they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clapkit.search import tables
from clapkit.search.tables import Table, write_table

N = 100


@pytest.fixture
def frame() -> pd.DataFrame:
    """Columns of every kind; some lack values, but not in every group of rows."""
    numbers = np.arange(N)
    return pd.DataFrame(
        {
            "number": numbers,
            "share": numbers / N,
            "word": [f"w{number}" for number in numbers],
            "rare": [None] * 30 + ["x"] * (N - 30),
            "count": pd.array([None if number < 25 else number for number in numbers], "Int64"),
            "flag": [number % 3 == 0 for number in numbers],
            "time": pd.date_range("2026-01-01", periods=N),
        }
    )


@pytest.fixture
def table(frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """Of ten groups."""
    monkeypatch.setattr(tables, "GROUP_ROWS", 10)
    write_table(frame, tmp_path / "t.parquet")
    return Table(tmp_path / "t.parquet")


@pytest.mark.parametrize("places", [[5], [3, 3, 3], [99, 0, 42, 7, 55, 42], list(range(N)), list(range(N))[::-1]])
def test_rows_come_in_the_asked_order(table: Table, frame: pd.DataFrame, places: list[int]) -> None:
    rows, expected = table.rows(np.array(places)), frame.take(places)
    for name in ("number", "share", "word", "flag", "time"):
        assert rows[name].tolist() == expected[name].tolist()
    for name in ("rare", "count"):
        assert rows[name].isna().tolist() == expected[name].isna().tolist()
        assert rows[name].dropna().tolist() == expected[name].dropna().tolist()


def test_no_rows_have_the_columns_still(table: Table, frame: pd.DataFrame) -> None:
    rows = table.rows(np.zeros(0, np.int64))
    assert (len(rows), rows.columns.tolist()) == (0, frame.columns.tolist())


def test_only_the_named_columns_come(table: Table) -> None:
    assert table.rows(np.array([1, 99]), ["word"]).to_dict("list") == {"word": ["w1", "w99"]}


def test_only_the_groups_that_are_asked_for_are_read(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = table._read_group
    monkeypatch.setattr(table, "_group", lambda group: read.append(int(group)) or real(group))
    table.rows(np.array([11, 95, 12]))
    assert read == [1, 9]
