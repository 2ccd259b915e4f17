"""Windows cover a clip from its first to its last sample, all of one length."""

from __future__ import annotations

import numpy as np
import pytest

from clapkit.audio.windows import cut_windows, fill_up, window_starts
from clapkit.config import AudioConfig

TEN = AudioConfig.model_construct(sample_rate=1000, window_s=0.01, padding="zero", fused_s=None)
"""Windows of ten samples, too short for a Fourier window."""


def clip(n_samples: int, n_channels: int = 1) -> np.ndarray:
    """Samples that all differ and are never zero."""
    return np.arange(1, n_channels * n_samples + 1, dtype=np.float32).reshape(n_channels, n_samples)


@pytest.mark.parametrize(
    ("n_samples", "starts"),
    [(1, [0]), (9, [0]), (10, [0]), (11, [0, 1]), (20, [0, 10]), (25, [0, 10, 15]), (30, [0, 10, 20])],
)
def test_windows_lie_end_to_end_and_the_last_ends_with_the_clip(n_samples: int, starts: list[int]) -> None:
    assert window_starts(n_samples, 10).tolist() == starts


def test_a_short_clip_is_one_window_padded_with_zeros() -> None:
    windows = cut_windows(clip(6), TEN)
    assert windows.waveform.shape == (1, 1, 10)
    assert windows.waveform.dtype == np.float32
    assert windows.waveform[0, 0].tolist() == [1, 2, 3, 4, 5, 6, 0, 0, 0, 0]
    assert windows.n_valid_samples.tolist() == [6]


def test_a_clip_of_one_window_is_left_as_it_is() -> None:
    windows = cut_windows(clip(10, 2), TEN)
    np.testing.assert_array_equal(windows.waveform, clip(10, 2)[None])
    assert windows.n_valid_samples.tolist() == [10]


@pytest.mark.parametrize("n_samples", [11, 25, 30, 99])
def test_a_long_clip_is_covered_without_padding(n_samples: int) -> None:
    waveform = clip(n_samples, 2)
    windows = cut_windows(waveform, TEN)
    assert (windows.n_valid_samples == 10).all()
    rebuilt = np.zeros_like(waveform)
    for window, start in zip(windows.waveform, windows.start_samples, strict=True):
        rebuilt[:, start : start + 10] = window
    np.testing.assert_array_equal(rebuilt, waveform)


def test_windows_are_copies_of_the_clip() -> None:
    waveform = clip(10)
    cut_windows(waveform, TEN).waveform[:] = 0
    np.testing.assert_array_equal(waveform, clip(10))


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("zero", [1, 2, 3, 4, 0, 0, 0, 0, 0, 0]),
        ("repeat", [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]),
        ("repeatpad", [1, 2, 3, 4, 1, 2, 3, 4, 0, 0]),
    ],
)
def test_a_short_clip_is_filled_up(padding: str, expected: list[int]) -> None:
    filled = fill_up(clip(4), 10, padding)
    assert filled.dtype == np.float32
    assert filled.tolist() == [expected]
    windows = cut_windows(clip(4), TEN.model_copy(update={"padding": padding}))
    assert windows.waveform[0].tolist() == [expected]
    assert windows.n_valid_samples.tolist() == [4]


@pytest.mark.parametrize(
    ("n_samples", "n_windows", "size"), [(9, 1, 10), (10, 1, 10), (11, 1, 11), (30, 1, 30), (31, 2, 30)]
)
def test_the_fused_tower_hears_a_long_clip_as_one(n_samples: int, n_windows: int, size: int) -> None:
    windows = cut_windows(clip(n_samples), TEN.model_copy(update={"fused_s": 0.03}))
    assert windows.waveform.shape == (n_windows, 1, size)
    assert windows.waveform[-1, 0, min(n_samples, size) - 1] == n_samples
