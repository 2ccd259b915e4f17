"""An index under construction: files are embedded in parts, each written whole, so that a killed build goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clapkit.errors import IndexMismatchError

FILE_COLUMNS = ["path", "size", "mtime_ns"]
PART_FILES = 256
PART_BYTES = 2**28
"""A part ends with the file that fills it; a kill costs one part at most."""
_RECORD = b"clapkit"
_DAMAGED = "{file}: damaged; remove it, and its files are embedded again."


@dataclass(frozen=True)
class Part:
    """What came out of some files.

    Attributes:
        files: a row per file: ``path`` (absolute), ``size`` in bytes, ``mtime_ns``, when it was read.
        spans: a row per window, in order of files and time: ``file`` (row of ``files``), ``start_s``, ``end_s``.
        vectors: ``(n_windows, dim)`` float32 of unit length.
        bad_files: path and reason of each file that could not be used; it is in ``files`` too, without windows.
    """

    files: pd.DataFrame
    spans: pd.DataFrame
    vectors: np.ndarray
    bad_files: dict[str, str]


def is_utf8(path: Path | str) -> bool:
    """Whether a path can be written into a table."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def file_table(files: Sequence[Path]) -> pd.DataFrame:
    """:data:`FILE_COLUMNS` of files as they are now; −1 for what is not there. All names must be UTF-8."""
    rows = []
    for file in files:
        absolute = os.path.realpath(file)
        try:
            state = os.stat(absolute)
            rows.append((absolute, state.st_size, state.st_mtime_ns))
        except OSError:
            rows.append((absolute, -1, -1))
    return pd.DataFrame(rows, columns=FILE_COLUMNS).drop_duplicates("path", ignore_index=True)


def in_parts(files: pd.DataFrame, most_files: int | None = None) -> Iterator[pd.DataFrame]:
    """Cut a file table into tables of ``most_files`` files (:data:`PART_FILES`) or about :data:`PART_BYTES` bytes."""
    most_files = most_files or PART_FILES
    start = n_bytes = 0
    for row, size in enumerate(files["size"].clip(lower=0)):
        n_bytes += int(size)
        if n_bytes >= PART_BYTES or row + 1 - start == most_files or row + 1 == len(files):
            yield files.iloc[start : row + 1].reset_index(drop=True)
            start, n_bytes = row + 1, 0


def write_part(part: Part, folder: Path) -> None:
    """Write a part into a folder, whole or not at all; its name follows from its files."""
    flat = pa.array(part.vectors.astype(np.float32).ravel())
    columns = {name: pa.array(part.spans[name]) for name in ("file", "start_s", "end_s")}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, part.vectors.shape[1])
    record = {"files": part.files[FILE_COLUMNS].values.tolist(), "bad_files": part.bad_files}
    table = pa.table(columns).replace_schema_metadata({_RECORD: json.dumps(record)})
    name = hashlib.sha256(json.dumps(record["files"]).encode("utf-8", "surrogatepass")).hexdigest()[:24]
    unfinished = folder / f".{name}.{os.getpid()}"
    pq.write_table(table, unfinished)
    unfinished.rename(folder / f"{name}.parquet")


def part_files(folder: Path) -> list[Path]:
    """The finished parts in a folder."""
    return sorted(file for file in folder.glob("*.parquet") if not file.name.startswith("."))


def files_of_part(file: Path) -> pd.DataFrame:
    """The file table of a finished part, without reading its vectors."""
    return pd.DataFrame(_read_record(file)["files"], columns=FILE_COLUMNS)


def read_part(file: Path) -> Part:
    """Read a finished part.

    Raises:
        IndexMismatchError: damaged.
    """
    record = _read_record(file)
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException):
        raise IndexMismatchError(_DAMAGED.format(file=file)) from None
    vectors = table["vector"].combine_chunks()
    dim = vectors.type.list_size
    values = vectors.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    files = pd.DataFrame(record["files"], columns=FILE_COLUMNS)
    return Part(files, table.drop_columns(["vector"]).to_pandas(), values, record["bad_files"])


def without_done(wanted: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The rows of a file table that no finished part holds as they are now."""
    parts = [files_of_part(file) for file in part_files(folder)]
    if not parts:
        return wanted
    done = pd.concat(parts).drop_duplicates().assign(done=True)
    marked = wanted[FILE_COLUMNS].merge(done, "left", on=FILE_COLUMNS)
    return wanted[marked["done"].isna().to_numpy()].reset_index(drop=True)


def _read_record(file: Path) -> dict:
    try:
        return json.loads(pq.read_schema(file).metadata[_RECORD])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        raise IndexMismatchError(_DAMAGED.format(file=file)) from None
