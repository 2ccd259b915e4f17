"""``--metadata``: a CSV with columns of the user's own, by which ``--where`` filters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clapkit.audio.io import find_sounds
from clapkit.data.manifest import read_csv
from clapkit.errors import ClapkitError

ROOTS = "roots"
"""In ``attrs`` of a table: the files and folders that its sounds were found in, for index-update."""


def sounds_with_metadata(paths: Sequence[Path], metadata: Path) -> pd.DataFrame:
    """Sounds and what a CSV says of them, one row each: ``path`` (absolute) and the CSV's columns, empty for others.

    Args:
        paths: sounds or folders of sounds; none takes those of the CSV.
        metadata: CSV with a column ``path``, relative to its folder.

    Raises:
        ClapkitError: there is no such CSV, a row without a path, or none of the rows is about one of the sounds.
        DatasetError: no readable CSV, or one without ``path``.
        AudioError: the only path does not exist, or a folder holds no sound.
    """
    if not metadata.exists():
        raise ClapkitError(f"{metadata}: no such file; check the path.")
    table = read_csv(metadata, ("path",), dtype={"path": str})
    if table["path"].isna().any():
        line = int(table["path"].isna().to_numpy().argmax()) + 2  # line 1 is the header
        raise ClapkitError(f"{metadata}, line {line}: has no path; fill it, or leave the line out.")
    table["path"] = [str((metadata.parent / path).resolve()) for path in table["path"]]
    if not paths:
        return table
    sounds = [str(path.resolve()) for path in find_sounds(paths)]
    if not table["path"].isin(sounds).any():
        raise ClapkitError(f"{metadata}: none of its {len(table)} paths is among the sounds; they are relative to it.")
    found = pd.DataFrame({"path": sounds}).merge(table, "left", on="path")
    found.attrs[ROOTS] = [str(path.resolve()) for path in paths]
    return found
