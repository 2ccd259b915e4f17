"""Vectors as tables that other programs read: a Parquet file from sounds or from an index, or a LanceDB table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clapkit.errors import AudioError, ClapkitError, StorageError
from clapkit.model import AudioTextModel
from clapkit.search.building import embed_in_parts, is_building, require_windows
from clapkit.search.changes import Sounds, list_sounds, live_files
from clapkit.search.embed import OVERLAP, window_hop_s
from clapkit.search.parts import Part
from clapkit.search.store import FILE_FACTS, changing, open_store
from clapkit.storage import disk_problem, replacing_folder

ABOUT = "clapkit"
"""Key of the Parquet file's metadata that names the model."""
ABOUT_FILE = "clapkit.json"
LANCE_TABLE = "sounds"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        n_files: files with at least one vector.
        n_rows: vectors.
        bad_files: one line for each file that was skipped.
    """

    n_files: int
    n_rows: int
    bad_files: list[str]


def embed_sounds(
    model: AudioTextModel, sounds: Sounds, output: str | Path, *, per_file: bool = False, overlap: float = OVERLAP,
    strict: bool = False, engine: str = "local", overwrite: bool = False,
) -> Exported:  # fmt: skip
    """Embed files and folders into a Parquet file; killed, the same call goes on where it stopped.

    Its columns are ``path``, ``start_s``, ``end_s``, the user's own, and ``vector`` ``(embed_dim,)`` float32 of unit
    length, a row per window; the metadata's key ``clapkit`` names the model and its fingerprint.

    Args:
        model: from :func:`clapkit.load`.
        sounds: as in :meth:`clapkit.AudioIndex.build`.
        output: the file.
        per_file: one row per file with the mean of its windows, of unit length.
        overlap: part of a window that the next one hears too, from 0 to 0.9.
        strict: make any bad file an error.
        engine: ``local`` or ``ray``.
        overwrite: replace the file; it stays until the new one is complete.

    Raises:
        AudioError: a path does not exist, a folder holds no sound, no file was usable, or a bad file when strict.
        StorageError: the file exists and ``overwrite`` is off, or the disk is full.
    """
    output, hop_s = Path(output), window_hop_s(model, overlap)
    building = output.with_name(f"{output.name}.building")
    _refuse_existing(output, overwrite=overwrite)
    if building.exists() and not is_building(building):
        raise StorageError(f"{building}: is in the way and not of clapkit; move it, or choose another --output.")
    files, _, bad_names = list_sounds(sounds)
    if strict and bad_names:
        raise AudioError(bad_names[0])
    with changing(building), _disk_problems_named(output):
        parts, bad_files = embed_in_parts(model, files, hop_s, building, strict=strict, engine=engine)
        bad_files = [*bad_names, *bad_files]
        try:
            require_windows(parts, bad_files)
        except AudioError:
            _forget(building)
            raise
        parts = [part for part in parts if len(part.spans)]
        about = {"checkpoint": model.origin, "fingerprint": model.fingerprint, "hop_s": hop_s}
        n_rows = _write_parquet(_rows(parts, per_file), files, model.embed_dim, about, output)
        _forget(building)
    return Exported(len(files) - len(bad_files) + len(bad_names), n_rows, bad_files)


def export_index(folder: str | Path, output: str | Path, *, to: str, overwrite: bool = False) -> Exported:
    """Write the vectors of an index, with ``id`` and all that is known of them, for other programs.

    Args:
        folder: of the index.
        output: the new file (``parquet``), or the new folder (``lancedb``, whose table is ``sounds``).
        to: ``parquet`` or ``lancedb``.
        overwrite: replace what is there.

    Raises:
        IndexMismatchError: the folder is no index, or damaged.
        ClapkitError: LanceDB is not installed.
        StorageError: the output exists and ``overwrite`` is off, or the disk is full.
    """
    store, output = open_store(Path(folder)), Path(output)
    about = {name: store.record[name] for name in ("checkpoint", "fingerprint", "hop_s")}
    parts = (store.read_segment(segment) for segment in store.segments)
    files, dim = live_files(store), store.record["embed_dim"]
    if to == "lancedb":
        n_rows = _write_lance(_rows(parts), files, dim, about, output, overwrite=overwrite)
    else:
        _refuse_existing(output, overwrite=overwrite)
        with _disk_problems_named(output):
            n_rows = _write_parquet(_rows(parts), files, dim, about, output, with_id=True)
    return Exported(len(files), n_rows, [])


def _rows(parts: Iterable[Part], per_file: bool = False) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Each part as a table with a row per vector, and the vectors."""
    for part in parts:
        spans, vectors = part.spans, part.vectors
        if per_file:
            starts = np.flatnonzero(np.diff(spans["file"], prepend=-1))
            vectors = np.add.reduceat(vectors, starts, axis=0)
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            spans = spans.groupby("file", as_index=False).agg(start_s=("start_s", "min"), end_s=("end_s", "max"))
        own = [name for name in part.files if name not in FILE_FACTS]
        files = part.files[own].iloc[spans["file"]].reset_index(drop=True)
        yield pd.concat([spans.drop(columns="file"), files], axis=1), vectors


def _schema(files: pd.DataFrame, dim: int, about: dict[str, Any], with_id: bool) -> pa.Schema:
    """Of the table; the types of the user's columns follow from all files."""
    own = files.drop(columns=[name for name in FILE_FACTS if name in files])
    known = pa.Schema.from_pandas(own, preserve_index=False)
    fields = [pa.field("id", pa.int64())] if with_id else []
    fields += [known.field("path"), pa.field("start_s", pa.float64()), pa.field("end_s", pa.float64())]
    fields += [each for each in known if each.name != "path"]
    fields.append(pa.field("vector", pa.list_(pa.float32(), dim)))
    return pa.schema(fields, metadata={ABOUT: json.dumps(about)})


def _batches(rows: Iterable[tuple[pd.DataFrame, np.ndarray]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    dim = schema.field("vector").type.list_size
    for table, vectors in rows:
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
        columns = [
            pa.FixedSizeListArray.from_arrays(flat, dim)
            if each.name == "vector"
            else pa.array(table[each.name], each.type, from_pandas=True)
            if each.name in table
            else pa.nulls(len(table), each.type)  # a column of another segment
            for each in schema
        ]
        yield pa.record_batch(columns, schema=schema)


def _write_parquet(
    rows: Iterable[tuple[pd.DataFrame, np.ndarray]], files: pd.DataFrame, dim: int, about: dict[str, Any],
    output: Path, *, with_id: bool = False,
) -> int:  # fmt: skip
    """Write a file whole or not at all; gives the number of rows."""
    schema, n_rows = _schema(files, dim, about, with_id), 0
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.part")
    try:
        with pq.ParquetWriter(unfinished, schema) as writer:
            for batch in _batches(rows, schema):
                writer.write_batch(batch)
                n_rows += len(batch)
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
    return n_rows


def _write_lance(
    rows: Iterable[tuple[pd.DataFrame, np.ndarray]], files: pd.DataFrame, dim: int, about: dict[str, Any],
    output: Path, *, overwrite: bool,
) -> int:  # fmt: skip
    try:
        import lancedb
    except ImportError:
        raise ClapkitError("--to lancedb needs LanceDB; install it: pip install 'clapkit[lancedb]'.") from None
    schema = _schema(files, dim, about, with_id=True)
    if dotted := [name for name in schema.names if "." in name]:
        raise ClapkitError(
            f"column '{dotted[0]}': LanceDB allows no dot in a name; rename it and build the index again."
        )
    with replacing_folder(output, ABOUT_FILE, overwrite=overwrite) as partial:
        table = lancedb.connect(partial).create_table(LANCE_TABLE, _batches(rows, schema), schema=schema)
        (partial / ABOUT_FILE).write_text(json.dumps(about, indent=2), encoding="utf-8")
        return table.count_rows()


def _refuse_existing(output: Path, *, overwrite: bool) -> None:
    if output.is_dir():
        raise StorageError(f"{output}: is a folder; give --output the name of a file, such as vectors.parquet.")
    if output.suffix != ".parquet":
        raise StorageError(f"{output}: is to be a Parquet file; expected a name such as {output.stem}.parquet.")
    if output.exists() and not overwrite:
        raise StorageError(f"{output}: exists already; choose another --output or add --overwrite.")


def _forget(building: Path) -> None:
    shutil.rmtree(building, ignore_errors=True)


@contextmanager
def _disk_problems_named(output: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if reason := disk_problem(error):
            raise StorageError(f"{output}: could not be written ({reason}).") from None
        raise
