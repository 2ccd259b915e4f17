"""Cutting clips of any length into windows, and filling up those that are too short."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clapkit.config import AudioConfig


@dataclass(frozen=True)
class Windows:
    """The windows of one clip.

    Attributes:
        waveform: ``(n_windows, n_channels, n_window_samples)`` float32.
        n_valid_samples: ``(n_windows,)`` int64, samples of the clip itself.
        start_samples: ``(n_windows,)`` int64, where each window starts in the clip.
    """

    waveform: np.ndarray
    n_valid_samples: np.ndarray
    start_samples: np.ndarray


def n_window_samples(audio: AudioConfig) -> int:
    """Samples of one window."""
    return round(audio.window_s * audio.sample_rate)


def n_window_frames(audio: AudioConfig) -> int:
    """Frames that the front-end makes of one window."""
    return n_window_samples(audio) // audio.hop_length + 1


def window_starts(n_samples: int, n_window_samples: int) -> np.ndarray:
    """Starts of windows laid end to end; the last one is moved back so that it ends with the clip."""
    if n_samples <= n_window_samples:
        return np.zeros(1, dtype=np.int64)
    starts = np.arange(0, n_samples, n_window_samples, dtype=np.int64)
    return np.minimum(starts, n_samples - n_window_samples)


def cut_windows(waveform: np.ndarray, audio: AudioConfig) -> Windows:
    """Cut ``(n_channels, n_samples)`` into windows; a clip shorter than one window is filled up.

    For the fused tower a clip of up to ``audio.fused_s`` stays whole, and longer ones are cut into such spans.
    """
    n_samples, n_window = waveform.shape[1], n_window_samples(audio)
    if n_samples <= n_window:
        filled = fill_up(waveform, n_window, audio.padding)
        return Windows(filled[None], np.array([n_samples]), np.zeros(1, dtype=np.int64))
    if audio.fused_s is not None:
        n_window = min(n_samples, round(audio.fused_s * audio.sample_rate))
    starts = window_starts(n_samples, n_window)
    windows = np.stack([waveform[:, start : start + n_window] for start in starts]).astype(np.float32, copy=False)
    return Windows(windows, np.full(len(starts), n_window), starts)


def fill_up(waveform: np.ndarray, n_samples: int, padding: str) -> np.ndarray:
    """Lengthen ``(n_channels, at most n_samples)`` to ``(n_channels, n_samples)`` float32.

    Args:
        waveform: at least one sample.
        n_samples: wanted length.
        padding: ``zero``; ``repeat``, which cuts the last repeat; or ``repeatpad``, which fills zeros behind the last
            whole one.
    """
    n_given = waveform.shape[1]
    if n_given == n_samples:
        return np.array(waveform, dtype=np.float32)
    if padding == "repeat":
        return np.tile(waveform, -(-n_samples // n_given))[:, :n_samples].astype(np.float32, copy=False)
    if padding == "repeatpad":
        waveform = np.tile(waveform, n_samples // n_given)
    filled = np.zeros((waveform.shape[0], n_samples), dtype=np.float32)
    filled[:, : waveform.shape[1]] = waveform
    return filled
