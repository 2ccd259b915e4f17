"""LAION's fusion of long clips against transformers' extractor, whose random crops are fixed to the middle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import ClapFeatureExtractor

from clapkit.audio.fusion import fuse
from clapkit.audio.log_mel import LogMel
from clapkit.config import load_config, preset

N_FRAMES = 1001


@pytest.mark.parametrize("duration_s", [10.02, 10.04, 12.5, 25.0])
def test_four_pictures_of_a_long_clip(duration_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.random, "choice", lambda starts: starts[len(starts) // 2])
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, round(duration_s * 48_000)).astype(np.float32)
    extractor = ClapFeatureExtractor(truncation="fusion", frequency_min=50)
    expected = extractor(waveform, sampling_rate=48_000, return_tensors="pt")["input_features"].float()
    front_end = LogMel(load_config([preset("laion-fused")], ["audio.sixteen_bits=false"]).audio)
    log_mel, _ = front_end(torch.from_numpy(waveform)[None, None], torch.tensor([len(waveform)]))
    torch.testing.assert_close(fuse(log_mel, N_FRAMES).transpose(2, 3), expected, atol=2e-3, rtol=0)


def test_a_clip_is_fused_alike_alone_and_among_others() -> None:
    pictures = torch.randn(3, 1, 64, 1500, generator=torch.Generator().manual_seed(0))
    together = fuse(pictures, N_FRAMES)
    torch.testing.assert_close(together[1:2], fuse(pictures[1:2], N_FRAMES), atol=0, rtol=0)
