"""Decode once: the clips of a dataset as memory-mapped samples, keyed by the content of their files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pandas as pd

from clapkit.audio.io import load_waveform
from clapkit.config import AudioConfig
from clapkit.data.packs import Pack, digest_of, open_pack
from clapkit.errors import AudioError
from clapkit.parallel import done_ahead
from clapkit.progress import progress_bar
from clapkit.resources import cache_folder

FORMAT = 2
"""Raise it when decoding or the layout of the cache changes."""
LARGEST_MEMO = 1_000_000
"""Files whose content is remembered; those seen longest ago are forgotten."""
MEMO_FILE = "contents.json"


class WaveformStore:
    """Decoded clips on disk, opened as a memory map; ``store[i]`` is ``(n_channels, n_samples)`` float32.

    Attributes:
        digests: one text per clip that changes with its content, span, rate and channels.
        key: changes with any of them.
        n_samples: ``(n_clips,)`` int64.
    """

    def __init__(self, pack: Pack, digests: list[str], n_channels: int) -> None:
        self._pack = pack
        self._samples = np.memmap(pack.file, dtype=np.float32, mode="r")
        self._n_channels = n_channels
        self.digests = digests
        self.key = digest_of(*digests)
        self.n_samples = pack.lengths // n_channels

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, index: int) -> np.ndarray:
        start = self._pack.starts[index]
        return self._samples[start : start + self._pack.lengths[index]].reshape(self._n_channels, -1)


def load_clip(path: str, start_s: float, end_s: float, audio: AudioConfig) -> np.ndarray:
    """Decode one manifest row at the model's rate: ``(n_channels, n_samples)`` float32."""
    return load_waveform(
        path, audio.sample_rate, n_channels=audio.n_channels,
        start_s=0.0 if np.isnan(start_s) else start_s, end_s=None if np.isnan(end_s) else end_s,
    )  # fmt: skip


def open_waveforms(table: pd.DataFrame, audio: AudioConfig) -> WaveformStore:
    """Decode the rows of a manifest table once, and reuse them as long as content and preprocessing stay the same.

    Args:
        table: a manifest table.
        audio: rate and channels to decode to.

    Returns:
        The clips in the table's order.

    Raises:
        AudioError: a clip that cannot be used; what was decoded before it is kept.
        StorageError: the cache cannot be written.
    """
    rows = list(table[["path", "start_s", "end_s"]].itertuples(index=False, name=None))
    contents = _contents(list(dict.fromkeys(path for path, _, _ in rows)))
    digests = [digest_of(FORMAT, audio.sample_rate, audio.n_channels, contents[p][2], s, e) for p, s, e in rows]

    def decode(place: int) -> np.ndarray:
        waveform, path = load_clip(*rows[place], audio), rows[place][0]
        if _status(path) != contents[path][:2]:  # its digest must never name other samples
            raise AudioError(f"{path}: was changed while it was read; run again when nothing writes to it.")
        return waveform

    pack = open_pack("waveforms", np.float32, digests, lambda missing: _in_threads(decode, missing))
    return WaveformStore(pack, digests, audio.n_channels)


def _in_threads(function: Callable[[int], np.ndarray], places: Sequence[int]) -> Iterator[np.ndarray]:
    """Results in order, of which only a few wait in memory."""
    with ThreadPoolExecutor() as pool:
        for _, done in done_ahead(function, places, pool, 2 * (os.cpu_count() or 1)):
            yield done.result()


def _contents(paths: list[str]) -> dict[str, tuple[int, int, str]]:
    """Size, modification time and digest of each file's bytes; where the first two are known, the file is not read."""
    file = cache_folder() / "packs" / MEMO_FILE
    try:
        memo = json.loads(file.read_text(encoding="utf-8"))
        memo = {path: tuple(known) for path, known in memo.items() if len(known) == 3}
    except (OSError, ValueError, AttributeError, TypeError):  # not there yet, or damaged
        memo = {}
    known = {path: _status(path) for path in paths}
    changed = [path for path in paths if memo.get(os.path.abspath(path), ())[:2] != known[path]]
    if changed:
        with ThreadPoolExecutor() as pool, progress_bar("Reading files", len(changed)) as advance:
            for path, digest in zip(changed, pool.map(_file_digest, changed), strict=True):
                memo[os.path.abspath(path)] = (*known[path], digest)
                advance()
        with suppress(OSError):  # only saves time
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_suffix(f".{os.getpid()}.part")
            scratch.write_text(json.dumps(dict(list(memo.items())[-LARGEST_MEMO:])), encoding="utf-8")
            scratch.replace(file)
    return {path: memo[os.path.abspath(path)] for path in paths}


def _status(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file; it went missing after the dataset was read.") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check it.") from None
    return status.st_size, status.st_mtime_ns


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror}); check it.") from None
