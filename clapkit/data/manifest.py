"""The one table every dataset becomes: a row per clip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clapkit.errors import DatasetError

COLUMNS = ("path", "start_s", "end_s", "label", "tags", "caption", "fold", "source", "weight")
EMPTY = {"start_s": math.nan, "end_s": math.nan, "label": None, "tags": None, "caption": None, "fold": 0, "weight": 1.0}


@dataclass(frozen=True)
class Manifest:
    """A dataset on this machine.

    Attributes:
        dataset: its name, such as ``us8k``.
        table: columns ``path`` (str), ``start_s`` and ``end_s`` (seconds, NaN for the whole file), ``label`` (clean
            text, None for none or several), ``tags`` (tuple of labels where clips have several, else None), ``caption``
            (None for labels only), ``fold`` (int, 0 for none), ``source`` (the recording a clip was cut from) and
            ``weight`` (how often a clip is drawn in one epoch of training).
        labels: all labels in the dataset's order.
        note: one line that says what was found, such as a subset.
    """

    dataset: str
    table: pd.DataFrame
    labels: tuple[str, ...]
    note: str

    @property
    def folds(self) -> list[int]:
        """Official folds present, ascending; empty without folds."""
        return sorted(int(fold) for fold in self.table["fold"].unique() if fold)


def make_table(**columns: object) -> pd.DataFrame:
    """Build a manifest table; columns left out are filled as :data:`EMPTY` says."""
    table = pd.DataFrame(columns)
    for name, empty in EMPTY.items():
        if name not in table:
            table[name] = pd.Series([empty] * len(table), dtype=object if empty is None else type(empty))
    if "source" not in table:
        table["source"] = table["path"]
    return table[list(COLUMNS)].reset_index(drop=True)


def read_csv(file: Path, columns: tuple[str, ...], **options: Any) -> pd.DataFrame:
    """Read a CSV and check that it has these columns and at least one row.

    Raises:
        DatasetError: missing, malformed, or without the expected columns.
    """
    try:
        table = pd.read_csv(file, encoding="utf-8-sig", **options)
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(f"{file}: no such file; --root must be the folder as its publisher lays it out.") from None
    except IsADirectoryError:
        raise DatasetError(f"{file}: is a folder; expected a CSV file.") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{file}: not a readable CSV ({reason}); get the original file again.") from None
    if missing := [column for column in columns if column not in table]:
        raise DatasetError(f"{file}: lacks the column(s) {', '.join(missing)}; found {', '.join(table.columns)}.")
    if table.empty:
        raise DatasetError(f"{file}: has no rows; get the original file again.")
    return table


def read_metadata(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a publisher's CSV, in which none of these columns may have an empty cell.

    Raises:
        DatasetError: as :func:`read_csv`, or an empty cell, named by its line.
    """
    table = read_csv(file, columns)
    for column in columns:
        if table[column].isna().any():
            line = int(table[column].isna().to_numpy().argmax()) + 2  # line 1 is the header
            raise DatasetError(f"{file}, line {line}: {column} is empty; get the original file again.")
    return table


def published_manifest(
    dataset: str,
    root: Path,
    rows: pd.DataFrame,
    labels: tuple[str, ...],
    n_published: int | None,
) -> Manifest:
    """Build the manifest of a published dataset, whose clips must be there.

    Args:
        dataset: its name.
        root: its folder.
        rows: columns ``path`` (of :class:`Path`), ``label``, ``fold`` and ``source``.
        labels: all labels in the dataset's order.
        n_published: clips in the whole dataset, so that a subset is named as one; None when there is no whole.

    Raises:
        DatasetError: names the first missing clips and counts the rest.
    """
    missing = [path for path in rows["path"] if not path.is_file()]
    if missing:
        names = ", ".join(str(path.relative_to(root)) for path in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DatasetError(
            f"{dataset} at {root}: {len(missing)} of {len(rows)} clips in its CSV are missing: {names}{more}; "
            "copy them there, or remove their rows to use a subset."
        )
    table = make_table(**rows.assign(path=rows["path"].astype(str)).to_dict("series"))
    whole = n_published is None or len(table) == n_published
    size = f"{len(table)} clips" if whole else f"a subset of {len(table)} of {n_published} clips"
    folds = ", ".join(str(fold) for fold in sorted(table["fold"].unique()))
    note = f"{dataset} at {root}: {size}, {table['source'].nunique()} recordings, folds {folds}"
    return Manifest(dataset, table, labels, note)
