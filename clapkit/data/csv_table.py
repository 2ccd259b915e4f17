"""Your own sounds as a CSV: ``path``, ``text`` (or ``label``, ``tags``, ``caption``); spans, source, split, fold …"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from clapkit.data.manifest import Manifest, make_table, read_csv
from clapkit.data.prompts import clean_label
from clapkit.errors import DatasetError

TEXT_COLUMNS = ("text", "label", "tags", "caption")
SPLIT_FOLDS = {"": 1, "train": 1, "test": 2, "val": 3}


def load(file: Path) -> Manifest:
    """Read the table; paths are relative to the CSV's folder.

    ``text`` counts as a label when texts repeat (at most half as many texts as clips), else as a caption. ``tags`` are
    the labels of a clip that has several: ``dog;siren``. ``fold`` is a number; without it ``split`` is followed:
    ``train`` (or nothing) is fold 1, ``test`` fold 2, which is tested when no fold is named, and ``val`` fold 3, which
    early stopping watches with ``--val-fold 3`` and which is trained on otherwise. Where no line says ``test``,
    training clips have no fold: ``val`` is tested, or else a part of the recordings. ``weight`` says how often a clip
    is drawn in an epoch of training (nothing: once).

    Raises:
        DatasetError: columns missing, or a line that is wrong: no path or text, both label and tags, a missing file, a
            span, a fold or a weight that is no number, a span that ends before it starts, or a split of another name.
    """
    cells = read_csv(file, ("path",), dtype=str, keep_default_na=False, skip_blank_lines=False)
    if not any(column in cells for column in TEXT_COLUMNS):
        raise DatasetError(f"{file}: lacks a text column; add one of {', '.join(TEXT_COLUMNS)}.")
    cells = cells.apply(lambda column: column.fillna("").str.strip())
    cells = cells[(cells != "").any(axis=1)]  # blank lines; the index still counts them
    if "text" in cells:
        repeats = cells["text"].nunique() <= len(cells) / 2
        cells = cells.rename(columns={"text": "label" if repeats and "label" not in cells else "caption"})
    rows = [_row(cell, f"{file}, line {index + 2}", file.parent) for index, cell in cells.iterrows()]
    texts = {"label": object, "tags": object, "caption": object}
    table = make_table(**pd.DataFrame(rows).astype(texts).to_dict("series"))
    if "split" in cells and "fold" not in cells:
        table["testable"] = table["fold"] != SPLIT_FOLDS["val"]
        if SPLIT_FOLDS["test"] not in set(table["fold"]):
            table["fold"] = table["fold"].replace(SPLIT_FOLDS["train"], 0)
    labels = tuple(dict.fromkeys(label for row in rows for label in (row["tags"] or [row["label"]]) if label))
    return Manifest("csv", table, labels, f"csv {file}: {len(table)} clips, {len(labels)} labels")


def _row(cells: pd.Series, line: str, folder: Path) -> dict[str, object]:
    """One checked manifest row; a line without ``source`` is its own recording."""
    if not cells["path"]:
        raise DatasetError(f"{line}: has no path; fill it in or remove the line.")
    path = folder / cells["path"]
    label, caption = clean_label(cells.get("label", "")), " ".join(cells.get("caption", "").split())
    tags = tuple(dict.fromkeys(filter(None, map(clean_label, cells.get("tags", "").split(";")))))
    if label and tags:
        raise DatasetError(f"{line}: has a label and tags; put all its labels into tags, such as 'dog;siren'.")
    if not label and not tags and not caption:
        raise DatasetError(f"{line}: {path} has no text; fill it in or remove the line.")
    start_s, end_s = (_seconds(cells.get(name, ""), name, line) for name in ("start_s", "end_s"))
    if end_s <= (0.0 if math.isnan(start_s) else start_s):
        raise DatasetError(f"{line}: end_s {end_s:g} is not after start_s {cells.get('start_s') or '0'}.")
    if not path.is_file():
        raise DatasetError(f"{line}: {path} is missing; paths are relative to the CSV's folder.")
    return {
        "path": str(path), "start_s": start_s, "end_s": end_s, "label": label or None, "tags": tags or None,
        "caption": caption or None, "fold": _fold(cells, line), "source": cells.get("source") or str(path.resolve()),
        "weight": _weight(cells.get("weight", ""), line),
    }  # fmt: skip


def _seconds(cell: str, column: str, line: str) -> float:
    if not cell:
        return math.nan
    try:
        seconds = float(cell)
    except ValueError:
        seconds = -1.0
    if not (math.isfinite(seconds) and seconds >= 0):
        raise DatasetError(f"{line}: {column} '{cell}' is no time; expected seconds from the file's start, or nothing.")
    return seconds


def _weight(cell: str, line: str) -> float:
    try:
        weight = float(cell or 1.0)
    except ValueError:
        weight = 0.0
    if not 0 < weight < math.inf:
        raise DatasetError(f"{line}: weight '{cell}' is not how often a clip is drawn in an epoch; expected 1, 0.5, ….")
    return weight


def _fold(cells: pd.Series, line: str) -> int:
    """The ``fold`` column, or what :data:`SPLIT_FOLDS` makes of ``split``, or 0 for none."""
    if "fold" in cells:
        if cells["fold"] and not cells["fold"].isdecimal():
            raise DatasetError(f"{line}: fold '{cells['fold']}' is no whole number; expected 1, 2, … or nothing.")
        return int(cells["fold"] or 0)
    if "split" in cells:
        if cells["split"].lower() not in SPLIT_FOLDS:
            raise DatasetError(f"{line}: split '{cells['split']}' is unknown; expected train, val or test.")
        return SPLIT_FOLDS[cells["split"].lower()]
    return 0
