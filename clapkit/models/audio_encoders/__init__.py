"""Audio towers by name: log-mel pictures in, one feature vector per window out."""

from __future__ import annotations

from torch import nn

from clapkit.audio.windows import n_window_frames
from clapkit.config import AudioConfig, EncoderConfig
from clapkit.errors import ConfigError
from clapkit.models.audio_encoders.cnn4 import Cnn4
from clapkit.models.audio_encoders.cnn14 import Cnn14
from clapkit.models.audio_encoders.htsat import MOST_FRAMES, N_MELS, Htsat
from clapkit.models.audio_encoders.rescnn import ResCnn
from clapkit.models.audio_encoders.resnet18 import ResNet18


def build_audio_encoder(config: EncoderConfig, audio: AudioConfig) -> nn.Module:
    """Build the tower that the config names.

    Returns:
        A module with ``feature_dim`` and ``forward(log_mel, n_valid_frames) -> (batch, feature_dim)``, where
        ``log_mel`` is ``(batch, n_channels, n_mels, n_frames)`` and ``n_valid_frames`` is ``(batch,)``.

    Raises:
        ConfigError: the tower cannot read such pictures.
    """
    if config.name == "htsat":
        return _build_htsat(config, audio)
    if audio.fused_s is not None:
        raise ConfigError(f"audio.fused_s={audio.fused_s:g}: only encoder.name=htsat fuses; leave it out.")
    if config.name == "cnn4":
        return Cnn4(audio.n_channels)
    if config.name == "cnn14":
        return Cnn14(audio.n_channels, audio.n_mels, config.dropout)
    if config.name == "resnet18":
        return ResNet18(audio.n_channels, config.dropout)
    return ResCnn(audio.n_channels, config.width, config.dropout, without_mean=config.without_mean)


def _build_htsat(config: EncoderConfig, audio: AudioConfig) -> Htsat:
    n_frames = n_window_frames(audio)
    if audio.n_mels != N_MELS or audio.n_channels != 1 or n_frames > MOST_FRAMES:
        raise ConfigError(
            f"encoder.name=htsat reads mono pictures of {N_MELS} mels and at most {MOST_FRAMES} frames; these settings "
            f"give {audio.n_channels} channel(s), {audio.n_mels} mels and {n_frames} frames: change audio.n_channels, "
            "n_mels, window_s or hop_length."
        )
    return Htsat(config, is_fused=audio.fused_s is not None)
