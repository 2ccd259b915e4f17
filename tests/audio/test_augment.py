"""Training-time randomness stays inside a clip and inside its bounds, adds powers, and repeats with its generator."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from clapkit.audio.augment import (
    AugmentDraws,
    augment,
    augmentation_steps,
    change_level,
    cut_off,
    draw_augmentation,
    lay_under,
    mix,
    mix_pictures,
    mixup_shares,
    roll_frames,
    shorten,
    silence_clips,
    spec_augment,
)
from clapkit.audio.log_mel import LogMel
from clapkit.config import AudioConfig, AugmentConfig

AUDIO = AudioConfig(mean_db=-30.0, std_db=20.0)
NOTHING = AugmentConfig(time_shift=0, gain_db=0, eq_db=0, background=0, mixup=0, n_masks=0)
EVERYTHING = AugmentConfig(
    time_shift=1.0, gain_db=6, eq_db=6, background=0.5, short=0.9, mixup=0.5, low_pass=0.5, n_masks=2
)
STEP_NAMES = ["original", "time shift", "gain and EQ", "background", "shortened", "mixup", "low-pass", "SpecAugment"]
N_VALID = torch.tensor([1, 40, 77, 100])
N_MELS = 16


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked(pictures: Tensor, n_valid: Tensor) -> Tensor:
    """Zero behind each clip's end, as LogMel gives it."""
    return pictures * (torch.arange(pictures.shape[-1]) < n_valid[:, None, None, None])


def clips(seed: int = 0) -> Tensor:
    """``(4, 2, N_MELS, 100)`` normalised pictures of noise."""
    return masked(torch.randn(4, 2, N_MELS, 100, generator=seeded(seed)), N_VALID)


def ramps() -> Tensor:
    """``(4, 2, N_MELS, 100)`` values that all differ, the padding's too, so that any that moves is noticed."""
    return torch.arange(1, 4 * 2 * N_MELS * 100 + 1, dtype=torch.float32).view(4, 2, N_MELS, 100)


def level(decibels: float, n_valid: int = 50, n_clips: int = 1) -> tuple[Tensor, Tensor]:
    """Pictures of one level everywhere, normalised, with zeros from ``n_valid`` on."""
    valid = torch.full((n_clips,), n_valid)
    return masked(torch.full((n_clips, 1, N_MELS, 60), (decibels + 30) / 20), valid), valid


def decibels(log_mel: Tensor) -> Tensor:
    return log_mel * 20 - 30


def drawn(config: AugmentConfig, seed: int = 0, batch_size: int = 4) -> AugmentDraws:
    return draw_augmentation(batch_size, config, seeded(seed))


def test_shift_moves_frames_around_inside_the_valid_part_and_channels_alike() -> None:
    shift = torch.tensor([0.9, 0.35, -0.5, 0.131])
    rolled = roll_frames(ramps(), N_VALID, shift)
    steps = [0, 14, -38, 13]  # shift · valid frames, cut to whole frames
    for before, after, n_valid, step in zip(ramps(), rolled, N_VALID, steps, strict=True):
        assert torch.equal(after[..., :n_valid], before[..., :n_valid].roll(step, dims=-1))
        assert torch.equal(after[..., n_valid:], before[..., n_valid:])


def test_drawn_shifts_stay_within_their_part_and_go_both_ways() -> None:
    shift = drawn(NOTHING.model_copy(update={"time_shift": 0.1}), batch_size=2000).shift
    assert -0.1 <= shift.min() < -0.095
    assert 0.095 < shift.max() <= 0.1


def test_gain_stays_within_its_bounds_and_is_one_number_for_a_clip() -> None:
    draws = drawn(NOTHING.model_copy(update={"gain_db": 6.0}), batch_size=2000)
    pictures, valid = level(-40, n_clips=2000)
    change = decibels(change_level(pictures, valid, draws.gain_db, draws.eq_db, AUDIO))[..., :50] + 40
    assert torch.allclose(change, change[:, :1, :1, :1].expand_as(change), atol=1e-4)
    assert -6.001 < change.min() < -5.9
    assert 5.9 < change.max() < 6.001


def test_equalisation_is_bounded_and_linear_between_a_few_points() -> None:
    draws = drawn(NOTHING.model_copy(update={"eq_db": 6.0}), batch_size=500)
    pictures, valid = torch.zeros(500, 2, 64, 10), torch.full((500,), 10)
    curve = change_level(pictures, valid, draws.gain_db, draws.eq_db, AUDIO) * 20  # dB
    assert torch.equal(curve, curve[:, :1, :, :1].expand_as(curve))  # the same in each frame and channel
    curve = curve[:, 0, :, 0]
    n_points = draws.eq_db.shape[1]
    assert 5 < curve.abs().max() <= 6.001
    torch.testing.assert_close(curve[:, [0, -1]], draws.eq_db[:, [0, -1]])
    steepest = 2 * 6 * (n_points - 1) / 63
    assert curve.diff(dim=1).abs().max() <= steepest + 1e-4
    bends = (curve.diff(n=2, dim=1).abs() > 1e-3).sum(dim=1)
    assert bends.max() <= 2 * (n_points - 2)


def test_level_changes_leave_the_padding_at_zero() -> None:
    changed = change_level(clips(), N_VALID, torch.full((4,), 6.0), torch.full((4, 6), -3.0), AUDIO)
    assert not masked(changed, N_VALID).sub(changed).any()
    torch.testing.assert_close(changed, masked(clips() + 0.15, N_VALID))


def half_mixed(first: Tensor, second: Tensor, valid: Tensor, share: float = 0.5) -> tuple[Tensor, Tensor]:
    """The first of two pictures mixed with the second."""
    pictures, swap = torch.cat([first, second]), torch.tensor([1, 0])
    return mix_pictures(pictures, valid, swap, torch.full((2,), share), AUDIO)


def test_a_picture_mixed_with_itself_by_halves_has_half_the_power() -> None:
    picture, valid = level(-40)
    mixed, _ = half_mixed(picture, picture, valid.repeat(2))
    torch.testing.assert_close(decibels(mixed[..., :50]), torch.full((2, 1, N_MELS, 50), -40 + 10 * math.log10(0.5)))


@pytest.mark.parametrize("share", [0.5, 0.6, 0.9])
def test_a_picture_mixed_with_silence_sinks_by_its_share(share: float) -> None:
    mixed, _ = half_mixed(level(-20)[0], level(-100)[0], torch.tensor([50, 50]), share)
    expected = torch.full((1, N_MELS, 50), -20 + 20 * math.log10(share))
    torch.testing.assert_close(decibels(mixed[0, ..., :50]), expected, atol=1e-3, rtol=0)


def test_two_levels_add_as_powers() -> None:
    mixed, _ = half_mixed(level(-30)[0], level(-36)[0], torch.tensor([50, 50]), 0.7)
    power = 0.7**2 * 10**-3.0 + 0.3**2 * 10**-3.6
    assert float(decibels(mixed[0, 0, 0, 0])) == pytest.approx(10 * math.log10(power), abs=1e-3)


def test_padding_is_silence_and_not_the_mean_level() -> None:
    first, second = level(-60, 50)[0], level(-60, 20)[0]
    mixed, valid = half_mixed(first, second, torch.tensor([50, 20]))
    assert valid.tolist() == [50, 50]  # the longer of both
    alone = torch.full((1, N_MELS, 30), -60 + 20 * math.log10(0.5))
    torch.testing.assert_close(decibels(mixed[0, ..., 20:50]), alone, atol=0.01, rtol=0)
    torch.testing.assert_close(decibels(mixed[1, ..., 20:50]), alone, atol=0.01, rtol=0)
    assert not mixed[..., 50:].any()


def test_share_one_changes_no_bit() -> None:
    share = torch.tensor([1.0, 1.0, 0.6, 1.0])
    mixed, valid = mix_pictures(clips(), N_VALID, torch.tensor([3, 2, 1, 0]), share, AUDIO)
    assert torch.equal(mixed[[0, 1, 3]], clips()[[0, 1, 3]])
    assert torch.equal(valid, N_VALID)
    assert not torch.equal(mixed[2], clips()[2])


def test_no_background_changes_no_bit() -> None:
    behind_db = torch.tensor([-torch.inf, -torch.inf, -10.0, -torch.inf])
    laid = lay_under(clips(), N_VALID, clips(1), N_VALID, behind_db, AUDIO)
    assert torch.equal(laid[[0, 1, 3]], clips()[[0, 1, 3]])
    assert not torch.equal(laid[2], clips()[2])
    assert laid.isfinite().all()


def power(log_mel: Tensor) -> float:
    return float((10 ** (decibels(log_mel.double()) / 10)).mean())


@pytest.mark.parametrize("snr_db", [0.0, 5.0, 20.0])
@pytest.mark.parametrize(("n_valid", "n_behind"), [(100, 100), (40, 100)])
def test_the_background_lies_as_far_below_the_clip_as_drawn(snr_db: float, n_valid: int, n_behind: int) -> None:
    """What was added has the mean power of the clip, less the SNR, wherever it has the same length or is cut."""
    flat = torch.zeros(1, 1, N_MELS, 100)  # a background of one level, so that a cut keeps its mean power
    valid = torch.tensor([n_valid])
    own = masked(0.5 * torch.randn(1, 1, N_MELS, 100, generator=seeded()), valid)
    laid = lay_under(own, valid, flat + 0.7, torch.tensor([n_behind]), torch.tensor([-snr_db]), AUDIO)
    own_power = power(own[..., :n_valid])
    added = power(laid[..., :n_valid]) - own_power
    assert 10 * math.log10(own_power / added) == pytest.approx(snr_db, abs=0.05)


def test_the_drawn_snr_lies_in_its_range_and_happens_with_its_probability() -> None:
    config = NOTHING.model_copy(update={"background": 0.3, "background_snr_db": (5.0, 20.0)})
    behind_db = drawn(config, batch_size=3000).behind_db
    is_laid = behind_db > -torch.inf
    assert float(is_laid.float().mean()) == pytest.approx(0.3, abs=0.04)
    assert -20 <= behind_db[is_laid].min() < -19
    assert -6 < behind_db[is_laid].max() <= -5


def test_the_background_is_the_drawn_clip_of_the_batch() -> None:
    config = NOTHING.model_copy(update={"background": 1.0})
    draws, valid = drawn(config), torch.full((4,), 100)
    pictures = torch.randn(4, 1, N_MELS, 100, generator=seeded())
    expected = lay_under(pictures, valid, pictures[draws.behind], valid, draws.behind_db, AUDIO)
    changed, _ = augment(pictures, valid, draws, AUDIO, config)
    assert torch.equal(changed, expected)
    assert draws.behind.tolist() != [0, 1, 2, 3]


def test_backgrounds_from_a_folder_are_laid_under_in_the_order_given() -> None:
    """``backgrounds`` holds one picture for each clip already, however many sounds there are to choose from."""
    config = NOTHING.model_copy(update={"background": 1.0})
    draws = draw_augmentation(4, config, seeded(), n_backgrounds=1000)
    assert draws.behind.max() >= 4
    pictures, valid = torch.randn(4, 1, N_MELS, 100, generator=seeded()), torch.full((4,), 100)
    behind = torch.randn(4, 1, N_MELS, 100, generator=seeded(1))
    changed, _ = augment(pictures, valid, draws, AUDIO, config, (behind, valid))
    assert torch.equal(changed, lay_under(pictures, valid, behind, valid, draws.behind_db, AUDIO))


@pytest.mark.parametrize("alpha", [0.05, 0.4, 5.0])
def test_the_clips_own_share_is_at_least_half(alpha: float) -> None:
    config = AugmentConfig(mixup=1.0, mixup_alpha=alpha)
    partner, share = mixup_shares(500, config, seeded())
    assert sorted(partner.tolist()) == list(range(500))
    assert share.shape == (500,)
    assert share.min() >= 0.5
    assert share.max() <= 1
    assert share.unique().numel() > 100


def test_mixup_happens_with_its_probability() -> None:
    _, share = mixup_shares(2000, AugmentConfig(mixup=0.3, mixup_alpha=1.0), seeded())
    assert (share < 1).float().mean() == pytest.approx(0.3, abs=0.05)


def test_mix_adds_the_partners_share() -> None:
    values = torch.tensor([[[1.0, 2.0]], [[10.0, 20.0]], [[100.0, 200.0]]])
    mixed = mix(values, torch.tensor([1, 2, 2]), torch.tensor([0.75, 0.5, 0.6]))
    torch.testing.assert_close(mixed, torch.tensor([[[3.25, 6.5]], [[55.0, 110.0]], [[100.0, 200.0]]]))


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_mixing_pictures_is_close_to_mixing_uncorrelated_waveforms(share: float) -> None:
    audio = AudioConfig(sample_rate=16_000, window_s=2.0, n_mels=32)
    noise = torch.randn(8, 1, 32_000, generator=seeded()) * torch.logspace(-2, -0.5, 8)[:, None, None]
    log_mel, n_samples = LogMel(audio), torch.full((8,), 32_000)
    partner = torch.arange(8).roll(1)
    own, valid = log_mel(noise, n_samples)
    mixed, _ = mix_pictures(own, valid, partner, torch.full((8,), share), audio)
    expected, _ = log_mel(share * noise + (1 - share) * noise[partner], n_samples)
    difference = (mixed - expected).abs() * audio.std_db
    assert difference.mean() < 1.5
    bias = ((mixed - expected) * audio.std_db).mean()  # E[dB] of a random power is below dB of its mean
    assert abs(bias) < 1


def masked_part(config: AugmentConfig, seed: int) -> Tensor:
    """``(4, N_MELS, 100)``: where ``spec_augment`` blanked a picture of ones, the same in both channels."""
    blank = spec_augment(torch.ones(4, 2, N_MELS, 100), N_VALID, drawn(config, seed), config) == 0
    assert torch.equal(blank[:, 0], blank[:, 1])
    return blank[:, 0]


def test_time_masks_blank_whole_frames_inside_the_valid_part() -> None:
    config = AugmentConfig(n_masks=2, max_time_mask=0.2, max_freq_mask=0)
    n_masked = torch.zeros(4)
    for seed in range(50):
        blank = masked_part(config, seed)
        frames = blank[:, 0]
        assert torch.equal(blank, frames[:, None].expand_as(blank))
        for clip, n_valid in enumerate(N_VALID):
            assert not frames[clip, n_valid:].any()
            assert frames[clip].sum() <= 2 * (0.2 * n_valid + 1)
        n_masked = n_masked.maximum(frames.sum(dim=1))
    assert (n_masked[1:] > 0).all()


def test_frequency_masks_blank_whole_mel_bins() -> None:
    config = AugmentConfig(n_masks=2, max_time_mask=0, max_freq_mask=0.3)
    seen = torch.zeros(N_MELS, dtype=torch.bool)
    for seed in range(50):
        blank = masked_part(config, seed)
        bins = blank[:, :, 0]
        assert torch.equal(blank, bins[:, :, None].expand_as(blank))
        assert bins.sum(dim=1).max() <= 2 * (0.3 * N_MELS + 1)
        seen |= bins.any(dim=0)
    assert seen.all()


@pytest.mark.parametrize("backgrounds", [False, True])
def test_frames_behind_the_end_stay_exactly_zero(backgrounds: bool) -> None:
    for seed in range(20):
        n_backgrounds = 4 if backgrounds else None
        draws = draw_augmentation(4, EVERYTHING, seeded(seed), n_backgrounds)
        behind = (clips(seed + 1), N_VALID) if backgrounds else None
        for name, log_mel, valid in augmentation_steps(clips(seed), N_VALID, draws, AUDIO, EVERYTHING, behind):
            assert torch.equal(log_mel, masked(log_mel, valid)), name
            assert log_mel.isfinite().all(), name
            assert ((valid >= N_VALID.clamp_max(20)) & (valid <= 100)).all(), name


def test_steps_are_named_in_order_and_the_last_is_the_result() -> None:
    draws = drawn(EVERYTHING)
    steps = list(augmentation_steps(clips(), N_VALID, draws, AUDIO, EVERYTHING))
    assert [name for name, *_ in steps] == STEP_NAMES
    changed, valid = augment(clips(), N_VALID, draws, AUDIO, EVERYTHING)
    assert torch.equal(steps[-1][1], changed)
    assert torch.equal(steps[-1][2], valid)
    assert torch.equal(steps[0][1], clips())
    changes = [not torch.equal(one[1], other[1]) for one, other in pairwise(steps)]
    assert all(changes)


@pytest.mark.parametrize(
    ("update", "name"),
    [
        ({"time_shift": 0.5}, "time shift"),
        ({"gain_db": 3.0}, "gain and EQ"),
        ({"eq_db": 3.0}, "gain and EQ"),
        ({"background": 0.5}, "background"),
        ({"short": 1.0}, "shortened"),
        ({"mixup": 0.5}, "mixup"),
        ({"low_pass": 1.0}, "low-pass"),
        ({"n_masks": 1}, "SpecAugment"),
    ],
)
def test_only_steps_that_are_on_are_shown(update: dict[str, float], name: str) -> None:
    config = NOTHING.model_copy(update=update)
    steps = augmentation_steps(clips(), N_VALID, drawn(config), AUDIO, config)
    assert [each for each, *_ in steps] == ["original", name]


def test_zero_settings_change_nothing() -> None:
    changed, valid = augment(clips(), N_VALID, drawn(NOTHING), AUDIO, NOTHING)
    assert torch.equal(changed, clips())
    assert torch.equal(valid, N_VALID)
    widthless = NOTHING.model_copy(update={"n_masks": 3, "max_freq_mask": 0.0, "max_time_mask": 0.0})
    assert torch.equal(augment(clips(), N_VALID, drawn(widthless), AUDIO, widthless)[0], clips())


def test_what_is_given_is_left_alone() -> None:
    pictures, valid = clips(), N_VALID.clone()
    augment(pictures, valid, drawn(EVERYTHING), AUDIO, EVERYTHING)
    assert torch.equal(pictures, clips())
    assert torch.equal(valid, N_VALID)


def test_draws_repeat_with_the_generator_and_differ_with_another() -> None:
    first, second, other = drawn(EVERYTHING, 3), drawn(EVERYTHING, 3), drawn(EVERYTHING, 4)
    for each in fields(AugmentDraws):
        one, again, another = (getattr(draws, each.name) for draws in (first, second, other))
        assert torch.equal(one, again), each.name
        may_be_none = ("behind_db", "heard_s", "share", "kept")
        if one.is_floating_point() and each.name not in may_be_none:
            assert not torch.equal(one, another), each.name


def test_the_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draws = drawn(EVERYTHING)
    augment(clips(), N_VALID, draws, AUDIO, EVERYTHING)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(drawn(EVERYTHING).share, draws.share)


def test_a_clip_never_depends_on_others_unless_mixed_with_them() -> None:
    config = EVERYTHING.model_copy(update={"background": 0.0, "mixup": 0.0})
    draws = drawn(config)
    alone = {each.name: getattr(draws, each.name) for each in fields(draws)}
    alone = {name: value[:, 2:3] if name.endswith("masks") else value[2:3] for name, value in alone.items()}
    together, _ = augment(clips(), N_VALID, draws, AUDIO, config)
    single, _ = augment(clips()[2:3], N_VALID[2:3], replace(draws, **alone), AUDIO, config)
    torch.testing.assert_close(single[0], together[2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("level_kind", ["absolute", "relative"])
def test_a_low_pass_does_to_a_picture_what_a_low_rate_does_to_the_sound(level_kind: str) -> None:
    audio = AudioConfig(level=level_kind, top_db=60.0, f_max_hz=8_000, n_mels=64)
    wide = 0.1 * torch.randn(1, 1, 88_200, generator=seeded())
    spectrum = torch.fft.rfft(wide)
    spectrum[..., 16_000:] = 0  # 4 s: nothing above 4 kHz
    narrow = torch.fft.irfft(spectrum, 88_200)
    n_samples = torch.tensor([88_200])
    (before, valid), (expected, _) = LogMel(audio)(wide, n_samples), LogMel(audio)(narrow, n_samples)
    quiet = (expected[0, 0, :, 100] < expected.max() - 2).nonzero()[0, 0]  # the first bin that lost its sound
    cut = cut_off(before, valid, (quiet / 64).view(1), audio)
    assert (cut - expected).abs().mean() < 0.05  # 1 dB
    assert (before - expected).abs().mean() > 0.5
    assert torch.equal(cut_off(before, valid, torch.ones(1), audio), before)


def test_cuts_happen_with_their_probability_and_spare_the_low_part() -> None:
    kept = drawn(NOTHING.model_copy(update={"low_pass": 0.3}), batch_size=2000).kept
    assert 0.25 < (kept < 1).float().mean() < 0.35
    assert 0.6 <= kept.min() < 0.62


@pytest.mark.parametrize("level_kind", ["absolute", "relative"])
def test_a_shortened_picture_is_that_of_the_cut_sound(level_kind: str) -> None:
    audio = AudioConfig(level=level_kind)
    waveform = 0.01 * torch.randn(1, 1, 88_200, generator=seeded())
    waveform[..., 32_000:48_000] *= 30  # where nearly all power is
    (whole, valid), heard_s = LogMel(audio)(waveform, torch.tensor([88_200])), torch.tensor([0.5])
    short, n_heard = shorten(whole, valid, heard_s, torch.tensor([0.5]), audio)
    assert n_heard.item() == 11_025 // 320 + 1
    differences = []
    for frame in range(105, 112):  # the middle of the loud part, less half of what is heard, give or take
        cut = torch.zeros_like(waveform)
        cut[..., :11_025] = waveform[..., frame * 320 : frame * 320 + 11_025]
        expected, n_expected = LogMel(audio)(cut, torch.tensor([11_025]))
        assert n_expected.item() == n_heard.item()
        inside = slice(2, 32)  # frames that do not reach over the cut
        differences.append((short - expected)[..., inside].abs().mean())
    assert min(differences) < 0.01  # 0.2 dB
    assert max(differences) > 0.1
    assert not short[..., n_heard.item() :].any()


def test_shortening_keeps_loud_moments_and_leaves_the_others_whole() -> None:
    n_clips = 200
    loud, valid = level(-30.0, n_valid=60, n_clips=n_clips)
    loud[..., :20] -= 3  # 60 dB softer
    heard_s = torch.full((n_clips,), 10 * AUDIO.hop_length / AUDIO.sample_rate)
    short, n_heard = shorten(loud, valid, heard_s, torch.linspace(0, 1, n_clips), AUDIO)
    assert n_heard.eq(11).all()
    assert (short[:, 0, 0, 5:11] == 0).float().mean() > 0.95  # -30 dB, not the soft beginning
    heard_s[::2] = torch.inf
    short, n_heard = shorten(loud, valid, heard_s, torch.linspace(0, 1, n_clips), AUDIO)
    assert torch.equal(short[::2], loud[::2])
    assert n_heard[::2].eq(60).all()


def test_clips_are_shortened_with_their_probability_to_a_third_of_a_second_at_least() -> None:
    heard_s = drawn(NOTHING.model_copy(update={"short": 0.3}), batch_size=2000).heard_s
    short_s = heard_s[heard_s.isfinite()]
    assert 0.25 < len(short_s) / 2000 < 0.35
    assert 0.3 <= short_s.min() < 0.31
    assert 1.9 < short_s.max() <= 2.0


def test_silence_takes_the_place_of_the_drawn_clips_alone() -> None:
    pictures = torch.full((64, 2, N_MELS, 100), -1.0) - torch.arange(64).view(-1, 1, 1, 1)
    silenced, valid = silence_clips(clips(), N_VALID, torch.tensor([-1, 5, -1, 0]), pictures)
    assert torch.equal(silenced[[0, 2]], clips()[[0, 2]])
    assert silenced[1].unique().tolist() == [-6.0]
    assert silenced[3].unique().tolist() == [-1.0]
    assert valid.tolist() == [1, 100, 77, 100]


def test_settings_that_are_off_leave_the_other_draws_as_they_were() -> None:
    before, after = seeded(), seeded()
    first, second = draw_augmentation(4, NOTHING, before), draw_augmentation(4, EVERYTHING, after)
    assert torch.equal(first.partner, second.partner)
    assert not torch.equal(before.get_state(), after.get_state())
