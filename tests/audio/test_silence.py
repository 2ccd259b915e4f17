"""Silence is silent in every colour, and one picture of it is digital."""

from __future__ import annotations

import pytest
import torch

from clapkit.audio.log_mel import LOWEST_LEVEL_DB
from clapkit.audio.silence import silent_pictures
from clapkit.audio.windows import n_window_frames
from clapkit.config import AudioConfig


@pytest.mark.parametrize("level", ["absolute", "relative"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_pictures_fit_the_window_and_lie_below_most_sounds(level: str, n_channels: int) -> None:
    audio = AudioConfig(level=level, n_channels=n_channels, window_s=1.0)
    pictures = silent_pictures(audio, 16, torch.Generator().manual_seed(0))
    assert pictures.shape == (16, n_channels, audio.n_mels, n_window_frames(audio))
    taken_out = LOWEST_LEVEL_DB if level == "relative" else 0.0
    decibels = pictures * audio.std_db + audio.mean_db + (taken_out - audio.mean_db if level == "relative" else 0.0)
    assert decibels.mean(dim=(1, 2, 3)).max() < LOWEST_LEVEL_DB + 45
    assert decibels[0].unique().tolist() == pytest.approx([-100.0], abs=1e-3)
    assert decibels[1:].std() > 0.5


def test_silence_repeats_with_its_generator() -> None:
    first, again, other = (silent_pictures(AudioConfig(), 4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
