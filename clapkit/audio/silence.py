"""What nothing sounds like: digital silence, and the faint noise of a recorder that hears nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from clapkit.audio.log_mel import LogMel
from clapkit.audio.windows import n_window_frames, n_window_samples
from clapkit.config import AudioConfig

LEVELS_DBFS = (-125.0, -60.0)
"""Of the noise: from below the steps of sixteen bits (-90 dBFS) to the hiss of a cheap microphone."""
STEEPEST = 2.0
"""Noise's power falls with frequency to at most this exponent: 0 is white, 1 pink, 2 red."""


@torch.inference_mode()
def silent_pictures(audio: AudioConfig, n_pictures: int, generator: torch.Generator) -> Tensor:
    """Log-mel pictures of windows in which nothing is heard: ``(n_pictures, n_channels, n_mels, n_frames)`` float32.

    Args:
        audio: settings of the front-end.
        n_pictures: the first is of digital silence, the others of noise of random level and colour.
        generator: source of randomness, on the CPU.
    """
    n_samples, shape = n_window_samples(audio), (n_pictures, audio.n_channels)
    noise = torch.fft.rfft(torch.randn(*shape, n_samples, generator=generator))
    exponent = STEEPEST * torch.rand((n_pictures, 1, 1), generator=generator)
    frequency = torch.arange(noise.shape[-1]).clamp_min(1)
    waveform = torch.fft.irfft(noise * frequency ** (-exponent / 2), n_samples)
    low_dbfs, high_dbfs = LEVELS_DBFS
    level_dbfs = low_dbfs + (high_dbfs - low_dbfs) * torch.rand((n_pictures, 1, 1), generator=generator)
    waveform *= 10 ** (level_dbfs / 20) / waveform.square().mean(dim=-1, keepdim=True).sqrt()
    waveform[0] = 0
    pictures, _ = LogMel(audio)(waveform, torch.full((n_pictures,), n_samples))
    return pictures[..., : n_window_frames(audio)]
