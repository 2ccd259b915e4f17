"""From waveforms to normalised log-mel pictures, batched on the model's device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clapkit.config import AudioConfig
from clapkit.errors import ClapkitError

try:
    from torchaudio.transforms import MelSpectrogram
except (ImportError, OSError, RuntimeError) as error:
    raise ClapkitError(
        f"torch {torch.__version__} and the installed torchaudio do not fit together ({str(error).splitlines()[0]}); "
        "run: pip install 'torch>=2.11,<2.15' 'torchaudio>=2.11,<2.12'"
    ) from None

POWER_FLOOR = 1e-10
"""Smallest mel power; −100 dB."""
LARGEST_INT16 = 32_767
LOWEST_LEVEL_DB = -80.0
"""What is softer than this on average counts as near silence, and is not made louder by ``level``."""


class LogMel(nn.Module):
    """Mel spectrogram in dB with fixed normalisation statistics.

    Source: STFT power (Hann, centred, reflected) → mel filters → 10·log10(max(power, 1e-10)), as in PANNs
    (Kong et al. 2020) and every published CLAP; ``(dB − mean_db) / std_db``.
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelSpectrogram(
            sample_rate=config.filter_rate_hz or config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            f_min=config.f_min_hz,
            f_max=config.f_max_hz,
            n_mels=config.n_mels,
            mel_scale=config.mel_scale,
            norm=config.mel_norm,
        )
        for name, buffer in list(self.mel.named_buffers()):  # derived from the config, so not part of a checkpoint
            module_name, _, buffer_name = name.rpartition(".")
            self.mel.get_submodule(module_name).register_buffer(buffer_name, buffer, persistent=False)

    def forward(self, waveform: Tensor, n_valid_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log-mel pictures.

        Frames past a clip's end are zero, the mean of the normalised scale; with repeated clips (``config.padding``)
        every frame is valid.

        Args:
            waveform: ``(batch, n_channels, n_samples)`` float32 in [-1, 1] at the config's rate.
            n_valid_samples: ``(batch,)`` int64, length of each clip before padding.

        Returns:
            log_mel: ``(batch, n_channels, n_mels, n_frames)`` float32, normalised dB.
            n_valid_frames: ``(batch,)`` int64, at least 1.
        """
        waveform = waveform.float()
        if self.config.sixteen_bits:
            waveform = (waveform.clamp(-1, 1) * LARGEST_INT16).trunc() / LARGEST_INT16
        with torch.autocast(waveform.device.type, enabled=False):
            decibels = 10 * self.mel(waveform).clamp_min(POWER_FLOOR).log10()
        if self.config.top_db is not None:  # per clip, so that a batch never changes a clip
            decibels = decibels.maximum(decibels.amax(dim=(1, 2, 3), keepdim=True) - self.config.top_db)
        log_mel = (decibels - self.config.mean_db) / self.config.std_db
        if self.config.padding == "zero":
            n_valid_frames = (n_valid_samples + self.config.hop_length - 1) // self.config.hop_length
            n_valid_frames = n_valid_frames.clamp(1, log_mel.shape[-1])
        else:
            n_valid_frames = torch.full_like(n_valid_samples, log_mel.shape[-1])
        if self.config.level != "absolute":
            lowest = (LOWEST_LEVEL_DB - self.config.mean_db) / self.config.std_db
            log_mel = log_mel - level_of(log_mel, n_valid_frames, self.config).clamp_min(lowest)
        if self.config.padding == "zero":
            log_mel = mask_frames(log_mel, n_valid_frames)
        return log_mel, n_valid_frames


def level_of(log_mel: Tensor, n_valid_frames: Tensor, audio: AudioConfig) -> Tensor:
    """What ``audio.level`` takes out: ``(batch, n_channels, n_mels, 1)``, or ``(batch, 1, 1, 1)`` when relative."""
    means = mask_frames(log_mel, n_valid_frames).sum(dim=-1, keepdim=True) / n_valid_frames.view(-1, 1, 1, 1)
    return means.mean(dim=(1, 2), keepdim=True) if audio.level == "relative" else means


def mask_frames(features: Tensor, n_valid_frames: Tensor) -> Tensor:
    """Set frames past each clip's end to zero; ``(batch, ..., n_frames)`` with ``(batch,)`` valid counts."""
    frames = torch.arange(features.shape[-1], device=features.device)
    valid = frames < n_valid_frames.view(-1, *[1] * (features.ndim - 1))  # (batch, 1, ..., n_frames)
    return features * valid
