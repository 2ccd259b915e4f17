"""The datasets clapkit knows: where they are looked for, how to get them, and how to load them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from clapkit.data import csv_table, esc50, folder, fsd50k, us8k
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
        page: the publisher's page, where it is to be fetched by hand; None where ``--download`` fetches it.
    """

    title: str
    folder: str
    marker: Path
    contents: str
    licence: str
    default_test_fold: int
    page: str | None = None

    @property
    def way_to_get(self) -> str:
        """How it comes onto this machine, in a few words."""
        if self.page is None:
            return "--download (clapkit train) fetches it from its publisher"
        return f"unpack the archives of {self.page} side by side into a folder {self.folder}"


PUBLISHED = {
    "us8k": DatasetInfo(
        "UrbanSound8K", "UrbanSound8K", us8k.METADATA,
        "8732 clips of up to 4 s, 10 classes, 10 official folds, 6 GB", "CC BY-NC 3.0", 10,
    ),
    "esc50": DatasetInfo(
        "ESC-50", "ESC-50-master", esc50.METADATA,
        "2000 clips of 5 s, 50 classes, 5 official folds, 0.6 GB", "CC BY-NC 3.0", 1,
    ),
    "fsd50k": DatasetInfo(
        "FSD50K", "FSD50K", fsd50k.DEV, "51 197 clips, 200 classes, 33 GB",
        "CC BY 4.0 (set), CC licences per clip", fsd50k.EVAL_FOLD, "Zenodo record 4060432 (zenodo.org/records/4060432)",
    ),
}  # fmt: skip
OWN = ("folder", "csv")
NAMES = (*PUBLISHED, *OWN, "synthetic")
_LOADERS = {"us8k": us8k.load, "esc50": esc50.load, "fsd50k": fsd50k.load}


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
        return _LOADERS[name](find_root(name, root, download=download))
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
        root: as in :func:`load_manifest`; of several published sets their parent folder; beside your own sounds (one
            of :data:`OWN`) only their place, and the others are looked for as without ``root``.
        weights: how often a clip of each is drawn in an epoch, such as ``1,0.5``; once when left out.
        download: fetch published sets that are not on this machine.

    Raises:
        DatasetError: one is unknown, named twice or not found, or there is not one positive weight for each.
    """
    for name in names:
        check_name(name)
    own = [name for name in names if name in OWN]
    if len(set(names)) < len(names) or len(own) > 1:
        raise DatasetError(
            f"--dataset {','.join(names)}: expected each dataset once, and folder or csv, not both; "
            "put all your own sounds into one CSV."
        )
    numbers = _read_weights(weights, len(names))
    of_root = own or [name for name in names if name in PUBLISHED or len(names) == 1]
    manifests = [load_manifest(name, root if name in of_root else None, download=download) for name in names]
    return manifests[0] if len(names) == 1 and weights is None else mix_manifests(manifests, numbers)


def _read_weights(text: str | None, n_datasets: int) -> list[float]:
    if text is None:
        return [1.0] * n_datasets
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != n_datasets or not all(0 < number < math.inf for number in numbers):
        raise DatasetError(f"--weights {text}: expected {n_datasets} positive numbers, one for each dataset.")
    return numbers


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
        DatasetError: names every place looked in and the ways on, or, where a download is wanted, how to get a set
            that clapkit does not fetch.
    """
    info = PUBLISHED[name]
    parents = search_folders() if root is None else [root]
    places = [place for parent in parents for place in (parent / info.folder, parent)]
    for place in places:
        if (place / info.marker).is_file():
            return place
    if download and info.page:
        raise DatasetError(
            f"clapkit does not fetch {info.title} ({info.contents}): {info.way_to_get} and give it as --root."
        )
    if download:
        return download_dataset(name, root or search_folders()[0])
    looked = "\n".join(f"  {place / info.marker}" for place in places)
    hint = "" if os.environ.get("CLAPKIT_DATA") else "  (CLAPKIT_DATA is not set)\n"
    fetched = f"  --download            (clapkit train) fetch it from its publisher: {info.contents}\n"
    raise DatasetError(
        f"{info.title} is not on this machine. Looked for\n{looked}\n{hint}Ways on:\n"
        f"  --root DIR            the folder that holds {info.marker}\n"
        + (f"  get it ({info.contents}): {info.way_to_get}\n" if info.page else fetched)
        + "  --dataset synthetic   try everything on made-up city sounds"
    )


def search_folders() -> list[Path]:
    """Where published datasets are looked for, best first; downloads go into the first."""
    folders = [cache_folder() / "datasets"]
    if given := os.environ.get("CLAPKIT_DATA"):
        folders.insert(0, Path(given).expanduser())
    return folders
