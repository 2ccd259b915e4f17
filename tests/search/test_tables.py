"""Rows of a table come back in the asked order and type, from the file that is mapped or from Parquet alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clapkit.errors import IndexMismatchError
from clapkit.search.tables import Table, write_table

N = 100


@pytest.fixture
def frame() -> pd.DataFrame:
    """Columns of every kind; some lack values, but not in every row."""
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
            "kind": pd.Categorical(["a", "b", None, "b"] * (N // 4)),
            "length": pd.to_timedelta(numbers, "s"),
        }
    )


@pytest.fixture(params=["mapped", "Parquet alone"])
def table(frame: pd.DataFrame, tmp_path: Path, request: pytest.FixtureRequest) -> Table:
    write_table(frame, tmp_path / "t.parquet")
    if request.param == "Parquet alone":  # as earlier versions left it
        (tmp_path / "t.arrow").unlink()
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


@pytest.mark.parametrize("places", [[3], [40], [3, 40]])
def test_types_do_not_depend_on_the_rows(table: Table, frame: pd.DataFrame, places: list[int]) -> None:
    assert table.rows(np.array(places)).dtypes.to_dict() == frame.dtypes.to_dict()


def test_rows_are_found_without_reading_parquet(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(frame, tmp_path / "t.parquet")
    table = Table(tmp_path / "t.parquet")
    monkeypatch.setattr(table, "_parquet", None)
    monkeypatch.setattr(Table, "__len__", lambda _: N)
    assert table.rows(np.array([11, 95]))["number"].tolist() == [11, 95]


def test_a_mapped_file_that_says_otherwise_is_seen(table: Table, frame: pd.DataFrame, tmp_path: Path) -> None:
    assert table.is_whole()
    write_table(frame.assign(number=0), tmp_path / "other.parquet")
    (tmp_path / "other.arrow").rename(tmp_path / "t.arrow")
    assert not Table(tmp_path / "t.parquet").is_whole()


@pytest.mark.parametrize(
    "damage", [lambda file: file.write_bytes(file.read_bytes()[:900]), lambda file: file.write_bytes(b"")]
)
def test_a_damaged_mapped_file_may_be_deleted(frame: pd.DataFrame, tmp_path: Path, damage: Callable) -> None:
    write_table(frame, tmp_path / "t.parquet")
    damage(tmp_path / "t.arrow")
    with pytest.raises(IndexMismatchError, match=r"t\.arrow: damaged .*; delete it, t\.parquet holds the same"):
        Table(tmp_path / "t.parquet").rows(np.array([1]))
    (tmp_path / "t.arrow").unlink()
    assert Table(tmp_path / "t.parquet").rows(np.array([1]))["number"].tolist() == [1]


def test_a_mapped_file_with_other_rows_is_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    write_table(frame.iloc[:50], tmp_path / "half.parquet")
    write_table(frame, tmp_path / "t.parquet")
    (tmp_path / "half.arrow").rename(tmp_path / "t.arrow")
    with pytest.raises(IndexMismatchError, match="50 rows in place of 100"):
        Table(tmp_path / "t.parquet").rows(np.array([1]))
