"""Log-mel pictures equal the published front-end, and a clip's picture depends on that clip alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from clapkit.audio.log_mel import LogMel, mask_frames
from clapkit.audio.picture import log_mel_decibels
from clapkit.audio.windows import fill_up
from clapkit.config import AudioConfig

PUBLISHED = AudioConfig(
    sample_rate=48_000, window_s=10.0, n_fft=1024, hop_length=480, n_mels=64, f_min_hz=50, f_max_hz=14_000
)
SMALL = AudioConfig(sample_rate=16_000, window_s=1.0, hop_length=320, n_mels=32)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tone(frequency_hz: float) -> Tensor:
    """``(1, 1, 16000)``: a second at full scale."""
    return torch.sin(2 * torch.pi * frequency_hz * torch.arange(16_000) / 16_000)[None, None]


def decibels(log_mel: Tensor, config: AudioConfig) -> Tensor:
    return log_mel * config.std_db + config.mean_db


def test_equals_the_front_end_of_the_published_clap_models() -> None:
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(
        feature_size=64, sampling_rate=48_000, hop_length=480, fft_window_size=1024, max_length_s=10,
        frequency_min=50, frequency_max=14_000,
    )  # fmt: skip
    waveform = noise(480_000)
    published = extractor(waveform.numpy(), sampling_rate=48_000, truncation="rand_trunc", return_tensors="pt")
    expected = published["input_features"][0, 0].T  # (n_mels, n_frames)
    log_mel, n_valid_frames = LogMel(PUBLISHED)(waveform[None, None], torch.tensor([480_000]))
    assert n_valid_frames.tolist() == [1000]
    levels = decibels(log_mel, PUBLISHED)[0, 0]
    torch.testing.assert_close(levels[:, :1000], expected[:, :1000], rtol=0, atol=1e-3)


def test_mel_bins_rise_with_frequency_and_silence_is_the_floor() -> None:
    tones = torch.cat([tone(frequency_hz) for frequency_hz in (200, 1000, 4000, 7500)])
    log_mel, _ = LogMel(SMALL)(tones, torch.tensor([16_000] * 4))
    bins = log_mel[:, 0, :, 25].argmax(dim=1).tolist()
    assert bins == sorted(set(bins))
    silence, _ = LogMel(SMALL)(torch.zeros(1, 1, 16_000), torch.tensor([16_000]))
    torch.testing.assert_close(decibels(silence, SMALL)[..., :50], torch.full((1, 1, 32, 50), -100.0))


def test_normalisation_is_fixed() -> None:
    waveform, n_valid = noise(1, 1, 16_000), torch.tensor([16_000])
    shifted = SMALL.model_copy(update={"mean_db": -50.0, "std_db": 9.0})
    frames = slice(0, 50)
    first, second = (decibels(LogMel(config)(waveform, n_valid)[0], config)[..., frames] for config in (SMALL, shifted))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)


def test_frames_past_a_clips_end_are_zero() -> None:
    n_valid_samples = torch.tensor([1, 320, 321, 8000, 16_000])
    waveform = mask_frames(noise(5, 1, 16_000), n_valid_samples)
    log_mel, n_valid_frames = LogMel(SMALL)(waveform, n_valid_samples)
    assert log_mel.shape == (5, 1, 32, 51)
    assert n_valid_frames.tolist() == [1, 1, 2, 25, 50]
    for picture, n_frames in zip(log_mel, n_valid_frames, strict=True):
        assert (picture[..., n_frames:] == 0).all()
        assert (picture[..., :n_frames] != 0).all()


@pytest.mark.parametrize("top_db", [None, 30.0])
def test_a_clips_frames_do_not_depend_on_its_batch(top_db: float | None) -> None:
    log_mel = LogMel(SMALL.model_copy(update={"top_db": top_db}))
    quiet, loud = 0.001 * noise(1, 1, 16_000), 5 * noise(1, 1, 16_000, seed=1)
    n_valid_samples = torch.tensor([9000, 16_000])
    together, _ = log_mel(torch.cat([quiet, loud]), n_valid_samples)
    for clip, waveform in enumerate((quiet, loud)):
        alone, _ = log_mel(waveform, n_valid_samples[clip : clip + 1])
        torch.testing.assert_close(together[clip], alone[0], rtol=0, atol=1e-5)


def test_top_db_is_measured_from_each_clips_own_maximum() -> None:
    config = SMALL.model_copy(update={"top_db": 20.0})
    log_mel, _ = LogMel(config)(torch.cat([tone(1000), 0.01 * tone(1000)]), torch.tensor([16_000] * 2))
    levels = decibels(log_mel, config)[..., :50]
    for clip in levels:
        assert clip.max() - clip.min() == pytest.approx(20, abs=1e-3)
    assert levels[0].max() - levels[1].max() == pytest.approx(40, abs=0.1)


def test_both_channels_are_computed_alike() -> None:
    stereo = noise(1, 2, 16_000)
    log_mel, _ = LogMel(SMALL)(stereo, torch.tensor([16_000]))
    for channel in range(2):
        alone, _ = LogMel(SMALL)(stereo[:, channel : channel + 1], torch.tensor([16_000]))
        torch.testing.assert_close(log_mel[:, channel], alone[:, 0], rtol=0, atol=1e-5)


def test_half_precision_around_it_does_not_change_the_picture() -> None:
    waveform, n_valid = noise(1, 1, 16_000), torch.tensor([16_000])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = LogMel(SMALL)(waveform, n_valid)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, LogMel(SMALL)(waveform, n_valid)[0], rtol=0, atol=0)


def test_nothing_of_it_is_saved_in_a_checkpoint() -> None:
    assert list(LogMel(SMALL).state_dict()) == []
    assert list(LogMel(SMALL).parameters()) == []


@pytest.mark.parametrize("n_samples", [1, 500, 16_000, 40_000])
def test_a_picture_for_people_has_as_many_frames_as_the_clip_lasts(n_samples: int) -> None:
    picture = log_mel_decibels(noise(1, n_samples).numpy(), SMALL)
    assert picture.shape == (32, -(-n_samples // 320))
    assert np.isfinite(picture).all()
    assert picture.min() >= -100.001


@pytest.mark.parametrize("level", ["relative", "flat"])
def test_a_level_forgets_loudness_but_does_not_make_silence_loud(level: str) -> None:
    levelled = LogMel(AudioConfig(sample_rate=16_000, window_s=1.0, level=level))
    absolute = LogMel(AudioConfig(sample_rate=16_000, window_s=1.0))
    waveform = torch.rand(2, 1, 16_000, generator=torch.Generator().manual_seed(0)) - 0.5
    n_valid = torch.tensor([16_000, 9_000])
    waveform[1, :, 9_000:] = 0
    loud, n_frames = levelled(waveform, n_valid)
    soft, _ = levelled(0.1 * waveform, n_valid)
    torch.testing.assert_close(loud, soft, atol=1e-3, rtol=0)
    for picture, own, frames in zip(loud, absolute(waveform, n_valid)[0], n_frames.tolist(), strict=True):
        means = picture[..., :frames].mean(dim=(0, 1, 2) if level == "relative" else 2)
        torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-5, rtol=0)
        shift = own[..., :frames] - picture[..., :frames]
        torch.testing.assert_close(shift, shift[..., :1].expand_as(shift), atol=1e-4, rtol=0)
        assert (float(shift.std()) < 1e-4) == (level == "relative")
        assert not picture[..., frames:].any()
    silence, _ = levelled(torch.zeros(1, 1, 16_000), torch.tensor([16_000]))
    assert float(silence[..., :-1].max()) < -0.9  # -100 dB, raised by no more than the lowest level of -80 dB


def test_samples_are_cut_to_16_bits_towards_zero() -> None:
    cut = LogMel(AudioConfig(sample_rate=16_000, window_s=1.0, sixteen_bits=True))
    exact = LogMel(AudioConfig(sample_rate=16_000, window_s=1.0))
    waveform = 1.2 * torch.rand(1, 1, 16_000, generator=torch.Generator().manual_seed(0)) - 0.6
    rounded = (waveform.numpy().clip(-1, 1) * 32767).astype(np.int16).astype(np.float32) / 32767
    n_valid = torch.tensor([16_000])
    torch.testing.assert_close(
        cut(waveform, n_valid)[0], exact(torch.from_numpy(rounded), n_valid)[0], atol=1e-4, rtol=0
    )
    assert not torch.equal(cut(waveform * 1e-3, n_valid)[0], exact(waveform * 1e-3, n_valid)[0])


@pytest.mark.parametrize("padding", ["repeat", "repeatpad"])
def test_every_frame_of_a_repeated_clip_is_valid(padding: str) -> None:
    config = SMALL.model_copy(update={"padding": padding})
    waveform = torch.from_numpy(fill_up(noise(1, 6000).numpy(), 16_000, padding))[None]
    log_mel, n_valid_frames = LogMel(config)(waveform, torch.tensor([6000]))
    assert n_valid_frames.tolist() == [51]
    unpadded, _ = LogMel(SMALL)(waveform, torch.tensor([16_000]))
    torch.testing.assert_close(log_mel[..., :50], unpadded[..., :50], rtol=0, atol=0)
    assert (log_mel != 0).all()


def test_mel_filters_of_another_rate_are_torchaudios() -> None:
    config = SMALL.model_copy(update={"filter_rate_hz": 12_000, "f_max_hz": 5500.0})
    expected = melscale_fbanks(513, 50.0, 5500.0, 32, 12_000, norm="slaney", mel_scale="slaney")
    filters = LogMel(config).mel.mel_scale.fb
    torch.testing.assert_close(filters, expected, rtol=0, atol=0)
    own_rate = LogMel(config.model_copy(update={"filter_rate_hz": None})).mel.mel_scale.fb
    assert float((filters - own_rate).abs().max()) > 0.1 * float(expected.max())
    log_mel, _ = LogMel(config)(tone(1000), torch.tensor([16_000]))  # 1000 Hz at 16 kHz is taken for 750 Hz at 12 kHz
    centres_hz = expected.argmax(dim=0) * 12_000 / 1024
    assert abs(float(centres_hz[log_mel[0, 0, :, 25].argmax()]) - 750) < 100
