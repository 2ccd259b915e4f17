"""Sounds of any length: decoded, resampled and cut into windows block by block, never held whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from clapkit.audio.io import NO_SAMPLES, check_finite, decode_file, mix_channels, start_resampler
from clapkit.audio.windows import fill_up, n_window_samples
from clapkit.config import AudioConfig
from clapkit.errors import AudioError, ConfigError


def stream_waveform(
    path: Path, sample_rate: int, *, n_channels: int = 1, block_s: float = 30.0
) -> Iterator[np.ndarray]:
    """Decode one file block by block; together the blocks are what ``load_waveform`` gives.

    Args:
        path: a sound or video file.
        sample_rate: wanted rate in Hz.
        n_channels: as for ``load_waveform``.
        block_s: length of a block in seconds, about; memory is in proportion to it.

    Yields:
        ``(n_channels, n_samples)`` float32 at ``sample_rate`` Hz, at least one sample.

    Raises:
        AudioError: missing, empty, truncated, undecodable, or not finite; when the iteration comes to it, so a cut
            file is mostly noticed behind the blocks that it gave.
    """
    resampler, n_resampled, first = None, 0, None
    for decoded, source_rate, _ in decode_file(path, block_s=block_s):
        check_finite(decoded, path)
        if decoded.shape[1] == 0:
            continue
        block = np.ascontiguousarray(mix_channels(decoded, n_channels), dtype=np.float32)
        first = block[:, :1].copy() if first is None else first
        if source_rate == sample_rate:
            yield block
            continue
        resampler = resampler or start_resampler(source_rate, sample_rate, n_channels)
        resampled = resampler.resample_chunk(np.ascontiguousarray(block.T))
        n_resampled += len(resampled)
        if len(resampled):
            yield np.ascontiguousarray(resampled.T)
    if first is None:
        raise AudioError(f"{path}: {NO_SAMPLES}")
    if resampler is not None:
        resampled = resampler.resample_chunk(np.zeros((0, n_channels), dtype=np.float32), last=True)
        if len(resampled):
            yield np.ascontiguousarray(resampled.T)
        elif n_resampled == 0:  # shorter than one output sample
            yield first


def stream_windows(
    blocks: Iterable[np.ndarray], audio: AudioConfig, hop_s: float | None = None
) -> Iterator[tuple[int, np.ndarray, int]]:
    """Cut consecutive blocks of one sound into windows as soon as they are heard; the last one ends with the sound.

    A sound shorter than a window is filled up as ``audio.padding`` says. For the fused tower one of up to
    ``audio.fused_s`` stays whole, and longer ones are cut into such spans.

    Args:
        blocks: ``(n_channels, n_samples)`` float32 at ``audio.sample_rate`` Hz, of any lengths.
        audio: window length, padding and rate.
        hop_s: seconds from one start to the next; None lays the windows end to end, as ``cut_windows`` does.

    Yields:
        The window's start in samples, ``(n_channels, n_window_samples)`` float32, and how many of its samples are of
        the sound itself.

    Raises:
        AudioError: no samples.
        ConfigError: ``hop_s`` is not above zero, or longer than a window.
    """
    n_window = n_window_samples(audio)
    n_span = n_window if audio.fused_s is None else round(audio.fused_s * audio.sample_rate)
    if hop_s is not None and not 1 <= hop_s * audio.sample_rate < n_span + 0.5:
        raise ConfigError(
            f"hop_s={hop_s:g}: expected above zero and up to the window's {n_span / audio.sample_rate:g} s, which "
            "leaves no part unheard."
        )
    n_hop = n_span if hop_s is None else round(hop_s * audio.sample_rate)
    start, n_heard, tail = 0, 0, None  # tail: the last samples heard, at most n_span
    for block in blocks:
        n_heard += block.shape[1]
        held = block if tail is None else np.concatenate([tail, block], axis=1)
        n_forgotten = n_heard - held.shape[1]
        while start + n_span < n_heard:
            yield start, _copy(held[:, start - n_forgotten : start - n_forgotten + n_span]), n_span
            start += n_hop
        tail = held[:, -n_span:].copy()
    if n_heard == 0:
        raise AudioError(f"the given blocks: {NO_SAMPLES}")
    if n_heard <= n_window:
        yield 0, fill_up(tail, n_window, audio.padding), n_heard
    else:
        yield n_heard - tail.shape[1], _copy(tail), tail.shape[1]


def _copy(window: np.ndarray) -> np.ndarray:
    """Samples of the window's own, so that no block stays in memory behind it."""
    return np.array(window, dtype=np.float32, order="C")
