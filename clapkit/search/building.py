"""Embedding that survives a kill: finished parts lie in a folder until what they are for is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from clapkit.errors import AudioError
from clapkit.model import AudioTextModel
from clapkit.progress import progress_bar
from clapkit.search.engines import ENGINES
from clapkit.search.parts import FILE_COLUMNS, Part, part_files, read_part, without_done

PLAN_FILE = "plan.json"


def embed_in_parts(
    model: AudioTextModel, files: pd.DataFrame, hop_s: float, folder: Path, *, strict: bool = False,
    engine: str = "local",
) -> tuple[list[Part], list[str]]:  # fmt: skip
    """Embed what no earlier attempt did, and give all files in parts.

    Args:
        model: an ``AudioTextModel``.
        files: as :func:`clapkit.search.parts.file_table` gives them, with the user's columns.
        hop_s: seconds between the starts of two windows.
        folder: for finished parts; those of another model or overlap are thrown away.
        strict: stop at the first bad file instead of skipping it.
        engine: of :data:`clapkit.search.engines.ENGINES`.

    Returns:
        The parts, with the user's columns and without bad files, and a line for each bad file.

    Raises:
        AudioError: a bad file, when ``strict``.
    """
    plan = json.dumps({"fingerprint": model.fingerprint, "hop_s": hop_s})
    if folder.exists() and (not (folder / PLAN_FILE).exists() or (folder / PLAN_FILE).read_text() != plan):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLAN_FILE).write_text(plan)
    missing = without_done(files, folder)
    with progress_bar("Embedding", len(files)) as advance:
        advance(len(files) - len(missing))
        ENGINES[engine](model, missing, hop_s, folder, advance, strict=strict)
    parts, bad_files = [], {}
    for part in _wanted_parts(folder, files):
        parts.append(part)
        bad_files |= part.bad_files
    return parts, list(bad_files.values())


def require_windows(parts: list[Part], bad_files: list[str]) -> None:
    """Refuse to go on with nothing.

    Raises:
        AudioError: no part has a window; says why the first file could not be used.
    """
    if not any(len(part.spans) for part in parts):
        first = next(iter(bad_files), "nothing was found")
        raise AudioError(f"none of the {len(bad_files)} file(s) could be used; the first problem: {first}")


def only_files(part: Part, paths: set[str]) -> Part:
    """A part with these files alone."""
    keep = part.files["path"].isin(paths).to_numpy(dtype=bool)
    place = np.where(keep, np.cumsum(keep) - 1, -1)
    of_span = place[part.spans["file"]]
    rows = np.flatnonzero(of_span >= 0)
    spans = part.spans.iloc[rows].assign(file=of_span[rows]).reset_index(drop=True)
    return Part(part.files[keep].reset_index(drop=True), spans, part.vectors[rows], part.bad_files)


def _wanted_parts(folder: Path, files: pd.DataFrame) -> Iterator[Part]:
    """The finished parts with their files that are wanted as they are now, and with the user's columns."""
    for file in part_files(folder):
        part = read_part(file)
        wanted = part.files.merge(files, "left", on=FILE_COLUMNS, indicator="found")
        keep = set(part.files["path"][wanted["found"].eq("both").to_numpy()])
        bad = {path: why for path, why in part.bad_files.items() if path in keep}
        named = Part(wanted.drop(columns="found"), part.spans, part.vectors, bad)
        yield only_files(named, keep - set(bad))
