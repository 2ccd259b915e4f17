"""Embedding that survives a kill: finished parts lie in a folder until what they are for is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    _follow_plan({"fingerprint": model.fingerprint, "dtype": str(model.dtype), "hop_s": hop_s}, folder)
    missing = without_done(files, folder)
    with progress_bar("Embedding", len(files)) as advance:
        advance(len(files) - len(missing))
        ENGINES[engine](model, missing, hop_s, folder, advance, strict=strict)
    parts, bad_files = [], {}
    for part in _wanted_parts(folder, files):
        parts.append(part)
        bad_files |= part.bad_files
    return parts, list(bad_files.values())


def is_building(folder: Path) -> bool:
    """Whether a folder holds finished parts and nothing else."""
    own = re.compile(rf"{re.escape(PLAN_FILE)}|lock|\.?[0-9a-f]{{24}}\.(parquet|[0-9]+)|\.{re.escape(PLAN_FILE)}")
    return folder.is_dir() and all(own.fullmatch(each.name) for each in folder.iterdir())


def _follow_plan(plan: dict[str, Any], folder: Path) -> None:
    """Keep the parts in a folder if they were made by this plan, else throw them away."""
    folder.mkdir(parents=True, exist_ok=True)
    file, text = folder / PLAN_FILE, json.dumps(plan)
    if file.exists() and file.read_text() == text:
        return
    for part in folder.glob("*.parquet"):
        part.unlink()
    unfinished = folder / f".{PLAN_FILE}"
    unfinished.write_text(text)
    unfinished.replace(file)


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
    seen: set[str] = set()
    for file in part_files(folder):
        part = read_part(file)
        keep = set(part.files.merge(files[FILE_COLUMNS], on=FILE_COLUMNS)["path"]) - seen
        seen |= keep
        bad = {path: why for path, why in part.bad_files.items() if path in keep}
        kept = only_files(part, keep - set(bad))
        yield Part(kept.files.merge(files, on=FILE_COLUMNS), kept.spans, kept.vectors, bad)
