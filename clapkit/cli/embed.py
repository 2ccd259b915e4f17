"""``clapkit embed`` and ``clapkit index-export``: vectors for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from clapkit.cli.options import (
    Checkpoint,
    Device,
    Engine,
    Flag,
    Metadata,
    Overwrite,
    Precision,
    Strict,
    load_model,
    named_sounds,
)
from clapkit.cli.output import report_bad_files
from clapkit.errors import ClapkitError


def embed(
    *paths: Path, output: Path, checkpoint: Checkpoint = "base", metadata: Metadata = None, per_file: Flag = False,
    overlap: float = 0.5, engine: Engine = "local", strict: Strict = False, overwrite: Overwrite = False,
    device: Device = "auto", precision: Precision = "float32",
) -> None:  # fmt: skip
    """Write the vectors of sounds into a Parquet file; killed, the same command goes on where it stopped.

    Args:
        paths: sounds or folders of sounds.
        output: the new file, with columns path, start_s, end_s, those of --metadata, and vector.
        per_file: one row per file, the mean of its windows.
        overlap: part of a window that the next one hears too.
    """
    from clapkit.search.export import embed_sounds

    if not paths and metadata is None:
        raise ClapkitError("nothing to embed; expected clapkit embed PATH ... --output vectors.parquet.")
    model = load_model(checkpoint, device, precision)
    done = embed_sounds(
        model, named_sounds(paths, metadata), output, per_file=per_file, overlap=overlap, strict=strict, engine=engine,
        overwrite=overwrite,
    )  # fmt: skip
    report_bad_files(done.bad_files, done.n_files + len(done.bad_files))
    print(f"{done.n_files} files, {done.n_rows} vectors of {model.embed_dim} numbers in {output}")


def index_export(index: Path, *, to: Literal["parquet", "lancedb"], output: Path, overwrite: Overwrite = False) -> None:
    """Write the vectors of an index, and all that it knows of them, for other programs.

    Args:
        index: folder written by clapkit index.
        to: parquet, or lancedb for a database with filters on several machines.
        output: the new file, or the database's new folder.
    """
    from clapkit.search.export import LANCE_TABLE, export_index

    done = export_index(index, output, to=to, overwrite=overwrite)
    place = f"{output}, table {LANCE_TABLE}" if to == "lancedb" else output
    print(f"{done.n_files} files, {done.n_rows} vectors in {place}")
