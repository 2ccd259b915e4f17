"""Bulk embedding: decode many files in parallel, skip bad ones, and keep where each window lies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from clapkit.audio.io import duration_s
from clapkit.audio.stream import stream_waveform, stream_windows
from clapkit.errors import AudioError
from clapkit.model import AudioTextModel
from clapkit.models.inference import ClipOutput, encode_windows
from clapkit.progress import progress_bar
from clapkit.search.parts import Part

DECODED_AHEAD = 16
"""Clips decoded before the model asks for them; it bounds memory."""
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

    with progress_bar("Embedding", len(files)) as advance:

        def waveforms() -> Iterator[np.ndarray]:
            for file, decoded in _decode_ahead(model, files):
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


def _decode_ahead(model: AudioTextModel, files: Sequence[Path]) -> Iterator[tuple[Path, Future[np.ndarray]]]:
    with ThreadPoolExecutor() as pool:
        ahead: deque[tuple[Path, Future[np.ndarray]]] = deque()
        for file in files:
            ahead.append((file, pool.submit(model.load_waveform, file)))
            if len(ahead) > DECODED_AHEAD:
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()


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
        for row, (path, found) in enumerate(_windows_ahead(model, files["path"].tolist(), hop_s)):
            try:
                for start, window, n_valid in found:
                    places.append((row, start / rate, (start + n_valid) / rate))
                    yield window, n_valid
            except AudioError as error:
                if strict:
                    raise
                bad_files[path] = str(error)
            advance()

    vectors = list(encode_windows(model.clap, windows(), model.dtype))
    spans = pd.DataFrame(places, columns=["file", "start_s", "end_s"])
    good = ~spans["file"].isin([row for row, path in enumerate(files["path"]) if path in bad_files])
    kept = np.array(vectors, dtype=np.float32).reshape(-1, model.embed_dim)[good.to_numpy()]
    return Part(files, spans[good].reset_index(drop=True), kept, bad_files)


def _windows_ahead(
    model: AudioTextModel, paths: Sequence[str], hop_s: float
) -> Iterator[tuple[str, Iterator[Window] | list[Window]]]:
    """Each file with its windows, cut ahead of need by other threads unless it is long; bad files raise on reading."""
    with ThreadPoolExecutor() as pool:
        ahead: deque[tuple[str, Future[list[Window] | None]]] = deque()
        for path in paths:
            ahead.append((path, pool.submit(_windows_of_short_file, model, path, hop_s)))
            if len(ahead) > DECODED_AHEAD:
                yield _resolved(model, *ahead.popleft(), hop_s)
        while ahead:
            yield _resolved(model, *ahead.popleft(), hop_s)


def _resolved(
    model: AudioTextModel, path: str, decoded: Future[list[Window] | None], hop_s: float
) -> tuple[str, Iterator[Window]]:
    def windows() -> Iterator[Window]:
        short = decoded.result()
        yield from _stream(model, path, hop_s) if short is None else short

    return path, windows()


def _windows_of_short_file(model: AudioTextModel, path: str, hop_s: float) -> list[Window] | None:
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
