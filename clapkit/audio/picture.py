"""A clip of any length as one log-mel picture in dB, for people to look at."""

from __future__ import annotations

import numpy as np
import torch

from clapkit.audio.log_mel import LogMel
from clapkit.config import AudioConfig


def log_mel_decibels(waveform: np.ndarray, audio: AudioConfig) -> np.ndarray:
    """``(n_channels, n_samples)`` → ``(n_mels, n_frames)`` in dB, of the first channel."""
    n_samples = max(waveform.shape[1], audio.n_fft)  # the Fourier window must fit
    padded = np.pad(waveform[:1], ((0, 0), (0, n_samples - waveform.shape[1])))
    log_mel, n_valid_frames = LogMel(audio)(torch.from_numpy(padded)[None], torch.tensor([waveform.shape[1]]))
    return log_mel[0, 0, :, : int(n_valid_frames)].numpy() * audio.std_db + audio.mean_db
