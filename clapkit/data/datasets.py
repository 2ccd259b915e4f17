"""The datasets clapkit knows: where they are looked for, how to get them, and how to load them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from clapkit.data import csv_table, esc50, folder, us8k
from clapkit.data.download import download_dataset
from clapkit.data.manifest import Manifest
from clapkit.data.mixture import mix_manifests
from clapkit.data.synthetic import write_synthetic_us8k
from clapkit.errors import DatasetError
from clapkit.resources import cache_folder


@dataclass(frozen=True)
class DatasetInfo:
    """A published dataset.

    Attributes:
        title: its published name.
        folder: what its publisher calls the folder.
        marker: a file that every copy has.
        contents: sizes in a few words.
        licence: under which terms its audio may be used.
        default_test_fold: kept for the test when the user names none and it is present.
    """

    title: str
    folder: str
    marker: Path
    contents: str
    licence: str
    default_test_fold: int


PUBLISHED = {
    "us8k": DatasetInfo(
        "UrbanSound8K", "UrbanSound8K", us8k.METADATA,
        "8732 clips of up to 4 s, 10 classes, 10 official folds, 6 GB", "CC BY-NC 3.0", 10,
    ),
    "esc50": DatasetInfo(
        "ESC-50", "ESC-50-master", esc50.METADATA,
        "2000 clips of 5 s, 50 classes, 5 official folds, 0.6 GB", "CC BY-NC 3.0", 1,
    ),
}  # fmt: skip
NAMES = (*PUBLISHED, "folder", "csv", "synthetic")


def load_manifest(name: str, root: Path | None = None, *, download: bool = False) -> Manifest:
    """Load a dataset by name.

    Args:
        name: one of :data:`NAMES`.
        root: its folder, or the CSV file; None looks in :func:`search_folders` (published sets) or writes one
            into the cache (``synthetic``).
        download: fetch a published set that is not on this machine.

    Raises:
        DatasetError: not found, or not as its publisher lays it out.
    """
    check_name(name)
    if name == "synthetic":
        return us8k.load(write_synthetic_us8k(root or cache_folder() / "synthetic"), "synthetic")
    if name in PUBLISHED:
        found = find_root(name, root, download=download)
        return us8k.load(found) if name == "us8k" else esc50.load(found)
    if root is None:
        wanted = "a folder of class folders" if name == "folder" else "a CSV file"
        raise DatasetError(f"dataset '{name}' needs --root with {wanted}.")
    return folder.load(root) if name == "folder" else csv_table.load(root)


def load_datasets(
    names: list[str], root: Path | None = None, weights: str | None = None, *, download: bool = False
) -> Manifest:
    """Load one dataset, or several as one.

    Args:
        names: of :data:`NAMES`; of several the first is tested, and all are trained on.
        root: as in :func:`load_manifest`; of several published sets their parent folder.
        weights: how often a clip of each is drawn in an epoch, such as ``1,0.5``; once when left out.
        download: fetch published sets that are not on this machine.

    Raises:
        DatasetError: one is not found, or there is not one positive weight for each.
    """
    manifests = [load_manifest(name, root, download=download) for name in names]
    if weights is None:
        numbers = [1.0] * len(names)
    else:
        try:
            numbers = [float(part) for part in weights.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != len(names) or not all(0 < number < math.inf for number in numbers):
            raise DatasetError(f"--weights {weights}: expected {len(names)} positive numbers, one for each dataset.")
    return manifests[0] if len(names) == 1 and weights is None else mix_manifests(manifests, numbers)


def check_name(name: str) -> str:
    """The name, if there is such a dataset.

    Raises:
        DatasetError: there is none.
    """
    if name not in NAMES:
        raise DatasetError(f"dataset '{name}': unknown; expected one of {', '.join(NAMES)}.")
    return name


def find_root(name: str, root: Path | None = None, *, download: bool = False) -> Path:
    """The folder of a published dataset: ``root`` or its sub-folder, else the search folders, else a download.

    Raises:
        DatasetError: names every place looked in and the ways on.
    """
    info = PUBLISHED[name]
    parents = search_folders() if root is None else [root]
    places = [place for parent in parents for place in (parent / info.folder, parent)]
    for place in places:
        if (place / info.marker).is_file():
            return place
    if download:
        return download_dataset(name, root or search_folders()[0])
    looked = "\n".join(f"  {place / info.marker}" for place in places)
    hint = "" if os.environ.get("CLAPKIT_DATA") else "  (CLAPKIT_DATA is not set)\n"
    raise DatasetError(
        f"{info.title} is not on this machine. Looked for\n{looked}\n{hint}Ways on:\n"
        f"  --root DIR            the folder that holds {info.marker}\n"
        f"  --download            (clapkit train) fetch it from its publisher: {info.contents}\n"
        "  --dataset synthetic   try everything on made-up city sounds"
    )


def search_folders() -> list[Path]:
    """Where published datasets are looked for, best first; downloads go into the first."""
    folders = [cache_folder() / "datasets"]
    if given := os.environ.get("CLAPKIT_DATA"):
        folders.insert(0, Path(given).expanduser())
    return folders
