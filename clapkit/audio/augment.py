"""Training-time randomness on batches of log-mel pictures; nothing here runs when a sound is embedded.

Working on pictures lets training keep them instead of computing them anew: level and equalisation are additions in dB,
and sounds are mixed as powers, which is what mixing uncorrelated waveforms gives on average.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from clapkit.audio.log_mel import POWER_FLOOR, level_of, mask_frames
from clapkit.config import AudioConfig, AugmentConfig

N_EQ_POINTS = 6
"""Random levels along the mel axis, between which the equalisation is linear."""

SILENCE_DB = 10 * math.log10(POWER_FLOOR)
SHORT_S = (0.3, 2.0)
"""Seconds that a shortened clip lasts."""
LOWEST_CUT = 0.6
"""A low-pass keeps at least this part of the mel axis; of 7.5 kHz about 2 kHz."""
N_SILENT = 64
"""Pictures of silence that one is drawn from."""
NEPER_PER_DB = math.log(10) / 10
"""Turns dB of power into natural logarithms."""


@dataclass(frozen=True)
class AugmentDraws:
    """All random numbers for one batch, drawn on the CPU so that every device and process sees the same.

    Attributes:
        shift: ``(batch,)`` part of the clip to roll by, in [-1, 1].
        gain_db: ``(batch,)``.
        eq_db: ``(batch, N_EQ_POINTS)`` levels from the lowest to the highest mel bin.
        behind: ``(batch,)`` int64, the sound laid under this clip.
        behind_db: ``(batch,)`` level of that clip relative to this one; −inf for none.
        partner: ``(batch,)`` int64, the clip mixed in.
        share: ``(batch,)`` this clip's own part in [0.5, 1]; 1 where nothing is mixed in.
        freq_masks: ``(2, batch, n_masks)`` width and place of each mask, as parts of what is possible.
        time_masks: ``(2, batch, n_masks)``.
        heard_s: ``(batch,)`` seconds that are left of the clip; inf for all.
        moment: ``(batch,)`` where they lie: after this part of the clip's power.
        kept: ``(batch,)`` part of the mel axis below the low-pass; 1 for none.
        silent: ``(batch,)`` int64, which picture of silence takes the clip's place; −1 for none.
    """

    shift: Tensor
    gain_db: Tensor
    eq_db: Tensor
    behind: Tensor
    behind_db: Tensor
    partner: Tensor
    share: Tensor
    freq_masks: Tensor
    time_masks: Tensor
    heard_s: Tensor
    moment: Tensor
    kept: Tensor
    silent: Tensor

    def to(self, device: torch.device) -> AugmentDraws:
        """The same draws on another device."""
        return AugmentDraws(**{each.name: getattr(self, each.name).to(device) for each in fields(self)})


def draw_augmentation(
    batch_size: int, config: AugmentConfig, generator: torch.Generator, n_backgrounds: int | None = None
) -> AugmentDraws:
    """Draw for one batch.

    Args:
        batch_size: clips.
        config: how much of what.
        generator: source of randomness, on the CPU.
        n_backgrounds: sounds to choose from for the background; None: the batch itself.
    """
    n_signed = 2 + N_EQ_POINTS
    signed = 2 * torch.rand((n_signed, batch_size), generator=generator) - 1  # in [-1, 1)
    if n_backgrounds is None:
        behind = torch.randperm(batch_size, generator=generator)
    else:
        behind = torch.randint(n_backgrounds, (batch_size,), generator=generator)
    low_db, high_db = config.background_snr_db
    snr_db = low_db + (high_db - low_db) * torch.rand(batch_size, generator=generator)
    has_background = torch.rand(batch_size, generator=generator) < config.background
    partner, share = mixup_shares(batch_size, config, generator)
    masks = torch.rand((2, 2, batch_size, config.n_masks), generator=generator)
    kept, silent = torch.ones(batch_size), torch.full((batch_size,), -1)
    if config.low_pass:
        is_cut, place = torch.rand((2, batch_size), generator=generator)
        kept = torch.where(is_cut < config.low_pass, LOWEST_CUT + (1 - LOWEST_CUT) * place, kept)
    if config.silence:
        is_silent = torch.rand(batch_size, generator=generator) < config.silence
        silent = torch.where(is_silent, torch.randint(N_SILENT, (batch_size,), generator=generator), silent)
    heard_s, moment = torch.full((batch_size,), torch.inf), torch.zeros(batch_size)
    if config.short:
        is_short, length, moment = torch.rand((3, batch_size), generator=generator)
        heard_s = torch.where(is_short < config.short, SHORT_S[0] * (SHORT_S[1] / SHORT_S[0]) ** length, heard_s)
    return AugmentDraws(
        shift=signed[0] * config.time_shift,
        gain_db=signed[1] * config.gain_db,
        eq_db=signed[2:].T * config.eq_db,
        behind=behind,
        behind_db=torch.where(has_background, -snr_db, -torch.inf),
        partner=partner,
        share=share,
        freq_masks=masks[0],
        time_masks=masks[1],
        heard_s=heard_s,
        moment=moment,
        kept=kept,
        silent=silent,
    )


def mixup_shares(batch_size: int, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a partner and a share for each clip of a batch.

    Source: Zhang et al. 2018, mixup; share of the clip itself is max(λ, 1−λ), λ ~ Beta(α, α).

    Returns:
        partner: ``(batch,)`` int64, a permutation.
        share: ``(batch,)`` float32 in [0.5, 1], the clip's own part; 1 where no mixing happens.
    """
    partner = torch.randperm(batch_size, generator=generator)
    gammas = torch._standard_gamma(torch.full((2, batch_size), config.mixup_alpha), generator=generator)
    share = gammas[0] / gammas.sum(dim=0).clamp_min(1e-8)
    share = share.maximum(1 - share)
    mixed = torch.rand(batch_size, generator=generator) < config.mixup
    return partner, torch.where(mixed, share, torch.ones(()))


def mix(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """``share · values + (1 − share) · values[partner]`` along the first dimension."""
    share = share.view(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values[partner]


def augment(
    log_mel: Tensor, n_valid_frames: Tensor, draws: AugmentDraws, audio: AudioConfig, config: AugmentConfig,
    backgrounds: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Change a batch as drawn.

    Args:
        log_mel: ``(batch, n_channels, n_mels, n_frames)`` normalised dB.
        n_valid_frames: ``(batch,)`` int64.
        draws: of this batch, on the same device.
        audio: how the dB were normalised.
        config: which steps are on.
        backgrounds: pictures and valid frames to lay under each clip; None: clip ``draws.behind`` of the batch.

    Returns:
        The changed pictures and their valid frames; labels are mixed by ``mix(labels, draws.partner, draws.share)``.
    """
    steps = augmentation_steps(log_mel, n_valid_frames, draws, audio, config, backgrounds)
    ((_, log_mel, n_valid_frames),) = deque(steps, maxlen=1)  # the last one
    return log_mel, n_valid_frames


def augmentation_steps(
    log_mel: Tensor, n_valid_frames: Tensor, draws: AugmentDraws, audio: AudioConfig, config: AugmentConfig,
    backgrounds: tuple[Tensor, Tensor] | None = None,
) -> Iterator[tuple[str, Tensor, Tensor]]:  # fmt: skip
    """:func:`augment` step by step: yields the step's name, the pictures and their valid frames; ``original`` first."""
    yield "original", log_mel, n_valid_frames
    if config.time_shift:
        log_mel = roll_frames(log_mel, n_valid_frames, draws.shift)
        yield "time shift", log_mel, n_valid_frames
    if config.gain_db or config.eq_db:
        log_mel = change_level(log_mel, n_valid_frames, draws.gain_db, draws.eq_db, audio)
        yield "gain and EQ", log_mel, n_valid_frames
    if config.background:
        if backgrounds is None:
            backgrounds = log_mel[draws.behind], n_valid_frames[draws.behind]
        log_mel = lay_under(log_mel, n_valid_frames, *backgrounds, draws.behind_db, audio)
        yield "background", log_mel, n_valid_frames
    if config.short:
        log_mel, n_valid_frames = shorten(log_mel, n_valid_frames, draws.heard_s, draws.moment, audio)
        yield "shortened", log_mel, n_valid_frames
    if config.mixup:
        log_mel, n_valid_frames = mix_pictures(log_mel, n_valid_frames, draws.partner, draws.share, audio)
        yield "mixup", log_mel, n_valid_frames
    if config.low_pass:
        log_mel = cut_off(log_mel, n_valid_frames, draws.kept, audio)
        yield "low-pass", log_mel, n_valid_frames
    if config.n_masks:
        yield "SpecAugment", spec_augment(log_mel, n_valid_frames, draws, config), n_valid_frames


def roll_frames(log_mel: Tensor, n_valid_frames: Tensor, shift: Tensor) -> Tensor:
    """Roll each clip's valid frames by ``shift``, a part of its length, around the end."""
    frames = torch.arange(log_mel.shape[-1], device=log_mel.device)[None]
    length = n_valid_frames[:, None]
    steps = (shift * n_valid_frames).long()[:, None]
    source = torch.where(frames < length, (frames - steps) % length, frames)  # (batch, n_frames)
    return log_mel.gather(3, source[:, None, None].expand_as(log_mel))


def change_level(log_mel: Tensor, n_valid_frames: Tensor, gain_db: Tensor, eq_db: Tensor, audio: AudioConfig) -> Tensor:
    """Add a level, and a curve over the mel bins that is linear between its points.

    Source: Nam et al. 2022, FilterAugment (linear variant).
    """
    curve_db = F.interpolate(eq_db[:, None], log_mel.shape[2], mode="linear", align_corners=True)[:, 0]
    change = (gain_db[:, None] + curve_db) / audio.std_db  # (batch, n_mels)
    return mask_frames(log_mel + change[:, None, :, None], n_valid_frames)


def lay_under(
    log_mel: Tensor, n_valid_frames: Tensor, behind: Tensor, n_valid_behind: Tensor, behind_db: Tensor,
    audio: AudioConfig,
) -> Tensor:  # fmt: skip
    """Add a second sound to each clip, ``behind_db`` relative to the clip's mean power; −inf adds nothing."""
    own_db, other_db = _decibels(log_mel, n_valid_frames, audio), _decibels(behind, n_valid_behind, audio)
    behind_power_db = _mean_power_db(other_db, n_valid_behind)
    level_db = _mean_power_db(own_db, n_valid_frames) - behind_power_db + behind_db
    mixed = (_add_powers(own_db, other_db + level_db[:, None, None, None]) - audio.mean_db) / audio.std_db
    is_sound = behind_power_db > SILENCE_DB + 20  # silence made louder would be noise
    changed = ((behind_db > -torch.inf) & is_sound)[:, None, None, None]
    return mask_frames(torch.where(changed, mixed, log_mel), n_valid_frames)


def shorten(
    log_mel: Tensor, n_valid_frames: Tensor, heard_s: Tensor, moment: Tensor, audio: AudioConfig
) -> tuple[Tensor, Tensor]:
    """Keep ``heard_s`` of each clip around a moment, which is likelier where it is loud; inf keeps all.

    The part becomes the whole clip: it starts at the first frame, and its level is taken out as in front.
    """
    n_heard = (heard_s * audio.sample_rate / audio.hop_length + 1).minimum(n_valid_frames).long()
    heard_power = _decibels(log_mel, n_valid_frames, audio).mul(NEPER_PER_DB).exp().sum(dim=(1, 2)).cumsum(dim=1)
    middle = torch.searchsorted(heard_power, moment[:, None] * heard_power[:, -1:])  # (batch, 1)
    start = (middle[:, 0] - n_heard // 2).clamp_min(0).minimum(n_valid_frames - n_heard)
    frames = torch.arange(log_mel.shape[-1], device=log_mel.device)
    source = (start[:, None] + frames).clamp_max(log_mel.shape[-1] - 1)
    part = log_mel.gather(3, source[:, None, None].expand_as(log_mel))
    if audio.level != "absolute":
        part = part - level_of(part, n_heard, audio)
    is_short = n_heard < n_valid_frames
    return mask_frames(torch.where(is_short[:, None, None, None], part, log_mel), n_heard), n_heard


def mix_pictures(
    log_mel: Tensor, n_valid_frames: Tensor, partner: Tensor, share: Tensor, audio: AudioConfig
) -> tuple[Tensor, Tensor]:
    """The picture of ``share · clip + (1 − share) · partner``, and its valid frames; share 1 changes nothing."""
    own_db = _decibels(log_mel, n_valid_frames, audio)
    other_db = own_db[partner] + 20 * (1 - share).clamp_min(1e-6).log10()[:, None, None, None]
    mixed_db = _add_powers(own_db + 20 * share.log10()[:, None, None, None], other_db)
    is_mixed = share < 1
    valid = torch.where(is_mixed, n_valid_frames.maximum(n_valid_frames[partner]), n_valid_frames)
    mixed = torch.where(is_mixed[:, None, None, None], (mixed_db - audio.mean_db) / audio.std_db, log_mel)
    return mask_frames(mixed, valid), valid


def cut_off(log_mel: Tensor, n_valid_frames: Tensor, kept: Tensor, audio: AudioConfig) -> Tensor:
    """Lower what lies above the part ``kept`` of the mel axis to the floor; the level is then taken out as in front.

    Source: what resampling to a low rate, or a telephone, does to a picture.
    """
    bins = torch.arange(log_mel.shape[2], device=log_mel.device) + 0.5
    is_above = bins > (kept * log_mel.shape[2])[:, None]  # (batch, n_mels)
    floor = torch.full((len(log_mel), 1, 1, 1), (SILENCE_DB - audio.mean_db) / audio.std_db, device=log_mel.device)
    if audio.top_db is not None:
        floor = log_mel.amax(dim=(1, 2, 3), keepdim=True) - audio.top_db / audio.std_db
    cut = torch.where(is_above[:, None, :, None], floor.minimum(log_mel), log_mel)
    if audio.level != "absolute":
        cut = cut - level_of(cut, n_valid_frames, audio)
    return mask_frames(torch.where((kept < 1)[:, None, None, None], cut, log_mel), n_valid_frames)


def silence_clips(log_mel: Tensor, n_valid_frames: Tensor, silent: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Put silence in the place of clips; ``silent`` as drawn, ``pictures`` of :func:`~clapkit.audio.silence`."""
    is_silent = silent >= 0
    log_mel = torch.where(is_silent[:, None, None, None], pictures[silent.clamp_min(0)], log_mel)
    return log_mel, torch.where(is_silent, log_mel.shape[-1], n_valid_frames)


def _decibels(log_mel: Tensor, n_valid_frames: Tensor, audio: AudioConfig) -> Tensor:
    """Back to dB; padding is silence."""
    decibels = log_mel * audio.std_db + audio.mean_db
    frames = torch.arange(log_mel.shape[-1], device=log_mel.device)
    return decibels.masked_fill(frames >= n_valid_frames[:, None, None, None], SILENCE_DB)


def _add_powers(first_db: Tensor, second_db: Tensor) -> Tensor:
    """Level of the sum of two uncorrelated sounds, bin by bin."""
    return torch.logaddexp(first_db * NEPER_PER_DB, second_db * NEPER_PER_DB) / NEPER_PER_DB


def _mean_power_db(decibels: Tensor, n_valid_frames: Tensor) -> Tensor:
    """``(batch,)`` mean power over channels, bins and valid frames."""
    n_bins = decibels.shape[1] * decibels.shape[2] * n_valid_frames
    return (torch.logsumexp(decibels.flatten(1) * NEPER_PER_DB, dim=1) - n_bins.log()) / NEPER_PER_DB


def spec_augment(log_mel: Tensor, n_valid_frames: Tensor, draws: AugmentDraws, config: AugmentConfig) -> Tensor:
    """Blank random bands of mel bins and of valid frames with zero, the mean of the normalised scale.

    Source: Park et al. 2019, SpecAugment.
    """
    batch, _, n_mels, n_frames = log_mel.shape
    bins = torch.full((batch,), n_mels, device=log_mel.device)
    keep_bins = _keep(n_mels, bins, draws.freq_masks, config.max_freq_mask)
    keep_frames = _keep(n_frames, n_valid_frames, draws.time_masks, config.max_time_mask)
    return log_mel * keep_bins[:, None, :, None] * keep_frames[:, None, None, :]


def _keep(size: int, valid: Tensor, masks: Tensor, widest: float) -> Tensor:
    """``(batch, size)`` of ones with bands of zeros inside the first ``valid`` places."""
    width = masks[0] * widest * valid[:, None]
    start = (masks[1] * (valid[:, None] - width)).floor()
    place = torch.arange(size, device=valid.device)[None, :, None]
    masked = (place >= start[:, None]) & (place < (start + width)[:, None])  # (batch, size, n_masks)
    return (~masked.any(dim=2)).float()
