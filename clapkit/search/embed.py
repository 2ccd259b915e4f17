"""Bulk embedding: decode many files in parallel, skip bad ones, and keep where each window lies."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from clapkit.audio.io import duration_s
from clapkit.audio.stream import stream_waveform, stream_windows
from clapkit.errors import AudioError, ClapkitError
from clapkit.model import AudioTextModel
from clapkit.models.inference import ClipOutput, encode_windows
from clapkit.parallel import done_ahead
from clapkit.progress import progress_bar
from clapkit.search.parts import Part

DECODED_AHEAD = 16
"""Clips decoded before the model asks for them; it bounds memory."""
N_DECODERS = max((os.cpu_count() or 1) // 2, 2)
"""Threads that decode; more of them get into the model's way."""
OVERLAP = 0.5
"""Part of a window that the next one hears too."""
LONG_S = 120.0
"""Longer files are decoded and cut as they are encoded, and never lie in memory as a whole."""

Window = tuple[int, np.ndarray, int]
"""First sample, samples ``(n_channels, n_window_samples)``, and how many of them are sound."""


@dataclass
class BulkResult:
    """What came out of many files.

    Attributes:
        clips: each usable file with the model's output, in the given order.
        bad_files: one readable line for each file that could not be used.
    """

    clips: list[tuple[Path, ClipOutput]] = field(default_factory=list)
    bad_files: list[str] = field(default_factory=list)


def encode_files(model: AudioTextModel, files: Sequence[Path], *, strict: bool = False) -> BulkResult:
    """Encode files with a progress bar.

    Args:
        model: an ``AudioTextModel``.
        files: sounds of any format and length.
        strict: stop at the first bad file instead of skipping it.

    Raises:
        AudioError: a bad file, when ``strict``.
    """
    result = BulkResult()
    usable: deque[Path] = deque()

    with progress_bar("Embedding", len(files)) as advance, ThreadPoolExecutor(N_DECODERS) as pool:

        def waveforms() -> Iterator[np.ndarray]:
            for file, decoded in done_ahead(model.load_waveform, files, pool, DECODED_AHEAD):
                try:
                    waveform = decoded.result()
                except AudioError as error:
                    if strict:
                        raise
                    result.bad_files.append(str(error))
                    advance()
                    continue
                usable.append(file)
                yield waveform

        for output in model.encode(waveforms()):
            result.clips.append((usable.popleft(), output))
            advance()
    return result


def window_hop_s(model: AudioTextModel, overlap: float) -> float:
    """Seconds between the starts of two windows.

    Raises:
        ClapkitError: the overlap makes no sense.
    """
    if not 0 <= overlap <= 0.9:
        raise ClapkitError(f"overlap {overlap:g}: expected a part of a window from 0 to 0.9.")
    return model.config.audio.window_s * (1 - overlap)


def embed_part(
    model: AudioTextModel, files: pd.DataFrame, hop_s: float, advance: Callable[..., None] = lambda: None,
    *, strict: bool = False,
) -> Part:  # fmt: skip
    """Embed every window of some files; memory grows with their number of windows, not with their samples.

    Args:
        model: an ``AudioTextModel``.
        files: as :func:`clapkit.search.parts.file_table` gives them.
        hop_s: seconds between the starts of two windows.
        advance: called for each file that is done.
        strict: stop at the first bad file instead of skipping it.

    Raises:
        AudioError: a bad file, when ``strict``.
    """
    rate, places, bad_files = model.config.audio.sample_rate, [], {}

    def windows() -> Iterator[tuple[np.ndarray, int]]:
        cut = partial(_windows_of_short_file, model, hop_s)
        for row, (path, short) in enumerate(done_ahead(cut, files["path"].tolist(), pool, DECODED_AHEAD)):
            try:
                found = short.result()
                for start, window, n_valid in _stream(model, path, hop_s) if found is None else found:
                    places.append((row, start / rate, (start + n_valid) / rate))
                    yield window, n_valid
            except AudioError as error:
                if strict:
                    raise
                bad_files[path] = str(error)
            advance()

    with ThreadPoolExecutor(N_DECODERS) as pool:
        vectors = list(encode_windows(model.clap, windows(), model.dtype))
    spans = pd.DataFrame(places, columns=["file", "start_s", "end_s"])
    good = ~spans["file"].isin([row for row, path in enumerate(files["path"]) if path in bad_files])
    kept = np.array(vectors, dtype=np.float32).reshape(-1, model.embed_dim)[good.to_numpy()]
    return Part(files, spans[good].reset_index(drop=True), kept, bad_files)


def _windows_of_short_file(model: AudioTextModel, hop_s: float, path: str) -> list[Window] | None:
    """The windows of a file; None when it is long."""
    length_s = duration_s(Path(path))
    if length_s is None or length_s > LONG_S:
        return None
    blocks = [model.load_waveform(path)]
    return list(stream_windows(blocks, model.config.audio, hop_s))


def _stream(model: AudioTextModel, path: str, hop_s: float) -> Iterator[Window]:
    audio = model.config.audio
    blocks = stream_waveform(Path(path), audio.sample_rate, n_channels=audio.n_channels)
    return stream_windows(blocks, audio, hop_s)
