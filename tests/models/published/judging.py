"""When two models count as equal."""

from __future__ import annotations

import numpy as np
import torch

from clapkit.audio.fusion import fuse
from clapkit.audio.windows import cut_windows, n_window_frames
from clapkit.model import AudioTextModel

LARGEST_DIFFERENCE, LEAST_COSINE = 1e-4, 0.9999
LEAST_MOVEMENT = 10 * LARGEST_DIFFERENCE
LARGEST_DB = 1e-2


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Vectors of unit length, one row for each sound or text, are the same; those of different ones are far apart."""
    assert ours.shape == theirs.shape
    assert (ours * theirs).sum(axis=1).min() >= LEAST_COSINE
    assert np.abs(ours - theirs).max() <= LARGEST_DIFFERENCE
    movements = [np.abs(ours[i] - ours[j]).max() for i in range(len(ours)) for j in range(i)]
    assert not movements or min(movements) >= LEAST_MOVEMENT


def assert_same_mel(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Pictures in dB, ``(n_channels, n_frames, n_mels)``; the fused originals repeat a short clip's four times."""
    if len(ours) == 1:
        assert (theirs == theirs[:1]).all()
    assert np.abs(ours - theirs[: len(ours)]).max() <= LARGEST_DB


def log_mel(model: AudioTextModel, waveform: np.ndarray) -> np.ndarray:
    """What the audio tower sees of ``(n_samples,)``: ``(1 or 4, n_frames, n_mels)`` in dB."""
    audio = model.config.audio
    windows = cut_windows(waveform[None], audio)
    pictures, _ = model.clap.log_mel(torch.from_numpy(windows.waveform), torch.from_numpy(windows.n_valid_samples))
    if pictures.shape[-1] > n_window_frames(audio):
        pictures = fuse(pictures, n_window_frames(audio))
    return pictures[0].transpose(1, 2).numpy() * audio.std_db + audio.mean_db
