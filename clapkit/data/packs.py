"""Compute once: what is derived from a dataset's clips lies in memory-mapped files, keyed by the content of the sounds.

A pack is a folder with the values of many clips one behind the other, and a journal with a record per clip. It is built
as ``<name>.part`` under a lock and renamed when complete, so a killed build goes on where it stopped; a changed or
grown dataset takes the clips that it shares with earlier packs from there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np

from clapkit.errors import StorageError
from clapkit.progress import progress_bar
from clapkit.resources import cache_folder
from clapkit.storage import disk_problem

LARGEST_CACHE_BYTES = 50 * 10**9
"""Beyond it, the packs used longest ago are removed after a build."""
RECENT_S = 86_400.0
"""A pack opened so recently is never removed, so that a run keeps all it works with."""

_RECORD = np.dtype([("digest", "S32"), ("n_values", "<i8")])
_VALUES, _JOURNAL = "values.bin", "journal.bin"


@dataclass(frozen=True)
class Pack:
    """Values of many clips in one file.

    Attributes:
        file: all values; clips of equal content are kept once.
        starts: ``(n_clips,)`` int64, where each clip begins, in values.
        lengths: ``(n_clips,)`` int64, in values.
    """

    file: Path
    starts: np.ndarray
    lengths: np.ndarray


def digest_of(*parts: object) -> str:
    """32 hexadecimal digits that change with any part."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def open_pack(
    kind: str, dtype: type[np.generic], digests: Sequence[str], compute: Callable[[Sequence[int]], Iterator[np.ndarray]]
) -> Pack:
    """Open the values of some clips, and compute those that are in no pack yet.

    Args:
        kind: what the values are, such as ``waveforms``.
        dtype: of the values.
        digests: one per clip, from :func:`digest_of`; they name content and processing.
        compute: given places in ``digests``, yields the values of each.

    Raises:
        StorageError: the cache cannot be written.
    """
    places = {digest: place for place, digest in reversed(list(enumerate(digests)))}  # the first of equal clips
    distinct = list(dict.fromkeys(digests))
    root = cache_folder() / "packs"
    folder = root / f"{digest_of(*distinct)}.{kind}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if _complete_clips(folder, dtype)["digest"].astype(str).tolist() != distinct:
                _build(folder, np.dtype(dtype), distinct, lambda missing: compute([places[each] for each in missing]))
                with suppress(OSError):  # another run removes the same; the next build tries again
                    _remove_old(root)
            os.utime(folder)
            clips = _complete_clips(folder, dtype)
    except OSError as error:
        raise StorageError(
            f"{root}: {kind} could not be kept ({disk_problem(error)}); CLAPKIT_CACHE moves the cache."
        ) from None
    order = {digest: number for number, digest in enumerate(distinct)}
    which = np.array([order[digest] for digest in digests], dtype=np.int64)
    lengths = clips["n_values"].astype(np.int64)
    return Pack(folder / _VALUES, (np.cumsum(lengths) - lengths)[which], lengths[which])


def _build(
    folder: Path, dtype: np.dtype, digests: list[str], compute: Callable[[Sequence[str]], Iterator[np.ndarray]]
) -> None:
    """Write values, then their record, clip by clip; go on behind the last complete clip of a killed build."""
    part = folder.with_name(f"{folder.name}.part")
    if folder.exists():  # damaged
        shutil.rmtree(part, ignore_errors=True)
        folder.rename(part)
    part.mkdir(exist_ok=True)
    n_done = _cut_to_complete_clips(part, dtype, digests)
    elsewhere = _clips_of_other_packs(folder, dtype, set(digests[n_done:]))
    missing = [digest for digest in digests[n_done:] if digest not in elsewhere]
    with (
        closing(compute(missing)) as computed,
        (part / _VALUES).open("ab") as values,
        (part / _JOURNAL).open("ab") as journal,
        progress_bar(f"Preparing {folder.suffix[1:].replace('_', '-')}", len(digests)) as advance,
    ):
        advance(n_done)
        for digest in digests[n_done:]:
            clip = elsewhere[digest] if digest in elsewhere else next(computed)
            values.write(np.ascontiguousarray(clip, dtype).data.cast("B"))
            values.flush()
            journal.write(np.array((digest, clip.size), _RECORD).tobytes())
            journal.flush()
            advance()
        os.fsync(values.fileno())
        os.fsync(journal.fileno())
    part.rename(folder)


def _complete_clips(folder: Path, dtype: type[np.generic] | np.dtype) -> np.ndarray:
    """Records of the clips whose values are all there: ``(n_clips,)`` of digest and n_values."""
    try:
        records = np.fromfile(folder / _JOURNAL, _RECORD)
        n_values = (folder / _VALUES).stat().st_size // np.dtype(dtype).itemsize
    except (FileNotFoundError, NotADirectoryError):
        return np.empty(0, _RECORD)
    return records[: np.searchsorted(np.cumsum(records["n_values"]), n_values, side="right")]


def _cut_to_complete_clips(part: Path, dtype: np.dtype, digests: list[str]) -> int:
    """Truncate a killed build behind its last complete clip, and return how many it has."""
    clips = _complete_clips(part, dtype)
    if clips["digest"].astype(str).tolist() != digests[: len(clips)]:
        clips = clips[:0]
    for name, n_bytes in ((_JOURNAL, clips.nbytes), (_VALUES, int(clips["n_values"].sum()) * dtype.itemsize)):
        with (part / name).open("ab") as stream:
            stream.truncate(n_bytes)
    return len(clips)


def _clips_of_other_packs(folder: Path, dtype: np.dtype, wanted: set[str]) -> dict[str, np.ndarray]:
    """Values that other packs of this kind, complete or not, hold already."""
    found: dict[str, np.ndarray] = {}
    for other in folder.parent.glob(f"*{folder.suffix}*"):
        if other.stem == folder.name or not (clips := _complete_clips(other, dtype)).size:
            continue
        with suppress(OSError):  # removed in between
            values = np.memmap(other / _VALUES, dtype, mode="r")
            ends = np.cumsum(clips["n_values"])
            for digest, n_values, end in zip(clips["digest"].astype(str), clips["n_values"], ends, strict=True):
                if digest in wanted:
                    found[digest] = values[end - n_values : end]
    return found


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a pack's lock, which the system releases when a process is killed."""
    lock = filelock.FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        with progress_bar("Waiting for another run's cache"):
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_old(root: Path) -> None:
    """Keep the cache below its limit: of the packs not used recently and not being built, the oldest go first."""
    packs = sorted((each for each in root.iterdir() if each.is_dir()), key=lambda each: each.stat().st_mtime)
    sizes = [sum(file.stat().st_size for file in each.iterdir()) for each in packs]
    excess = sum(sizes) - LARGEST_CACHE_BYTES
    for pack, size in zip(packs, sizes, strict=True):
        if excess <= 0 or time.time() - pack.stat().st_mtime < RECENT_S:
            return
        with suppress(filelock.Timeout), filelock.FileLock(f"{str(pack).removesuffix('.part')}.lock", timeout=0):
            shutil.rmtree(pack)
            excess -= size
