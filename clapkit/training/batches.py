"""Training batches: which clips, with which texts and targets, changed how; all of it follows from seed and number."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clapkit.audio.augment import augment, draw_augmentation, mix, silence_clips
from clapkit.audio.windows import n_window_frames
from clapkit.config import Config
from clapkit.data.log_mels import LogMelStore
from clapkit.training.teacher import Teacher
from clapkit.training.texts import TrainingTexts

NO_TEXT = 1e-6
"""Share of every text in silence, which has no other and so is equally far from all."""


@dataclass
class TrainingData:
    """Clips to learn from, or to validate on.

    Attributes:
        log_mels: pictures of the whole dataset.
        rows: ``(n_clips,)`` int64 place of each clip in ``log_mels``.
        weights: ``(n_clips,)`` how often a clip is drawn in one epoch, on average.
        texts: their texts.
        text_vectors: ``(n_texts, text_dim)`` of a frozen text tower; None when the tower is trained or not used.
        targets: ``(n_clips, n_labels)`` float32, 1 for each label of a clip; all 0 for captions only.
        backgrounds: pictures to lay under clips; None: other clips of the batch.
        silence: ``(N_SILENT, n_channels, n_mels, n_frames)`` pictures of silence, on the device; None: never heard.
        teacher: what else to believe of a clip than its label; None: nothing.
    """

    log_mels: LogMelStore
    rows: Tensor
    weights: Tensor
    texts: TrainingTexts
    text_vectors: Tensor | None
    targets: Tensor
    backgrounds: LogMelStore | None = None
    silence: Tensor | None = None
    teacher: Teacher | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Batch:
    """What one step needs; the pictures and texts may be a process's slice of the batch.

    Attributes:
        log_mel: ``(n_own, n_channels, n_mels, n_frames)``.
        n_valid_frames: ``(n_own,)``.
        text: ``(n_own + n_more, text_dim)`` vectors of a frozen tower, or the texts for a trained one; those behind the
            clips' own, a text of every label, are the same in each process.
        same: ``(batch, batch + n_more)`` how much of clip i the text j describes.
        targets: ``(batch, n_labels)`` shares of the labels.
    """

    log_mel: Tensor
    n_valid_frames: Tensor
    text: Tensor | list[str]
    same: Tensor
    targets: Tensor


def seeded_generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """Random numbers for one purpose, such as step 17; a resumed run draws what an uninterrupted one would."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def epoch_order(weights: Tensor, generator: torch.Generator) -> Tensor:
    """A random order in which each clip comes ``weight`` times, on average: ``(n_drawn,)`` int64."""
    whole, part = weights.floor().long(), weights.frac()
    drawn = torch.arange(len(weights)).repeat_interleave(whole)
    if n_more := _n_extra(weights):
        drawn = torch.cat([drawn, torch.multinomial(part.double(), n_more, generator=generator)])
    return drawn[torch.randperm(len(drawn), generator=generator)]


def n_drawn(weights: Tensor) -> int:
    """Clips in one epoch."""
    return int(weights.floor().sum()) + _n_extra(weights)


def _n_extra(weights: Tensor) -> int:
    """Clips drawn because of the weights' parts below 1, at most as many as have one."""
    part = weights.frac()
    return min(round(float(part.sum())), int((part > 0).sum()))


def training_batch(
    data: TrainingData, clips: Tensor, config: Config, generator: torch.Generator, own: slice, device: torch.device
) -> Batch:
    """Crop, augment and mix one batch, and keep a process's slice of it.

    Every process prepares the whole batch, so that partners and draws are those of a single process; that costs little
    beside the towers.
    """
    n_frames = n_window_frames(config.audio)
    spare = (data.log_mels.n_frames[data.rows[clips]] - n_frames).clamp_min(0)
    starts = (torch.rand(len(clips), generator=generator) * (spare + 1)).long()
    n_backgrounds = None if data.backgrounds is None else len(data.backgrounds)
    drawn = draw_augmentation(len(clips), config.augment, generator, n_backgrounds)
    drawn_texts = data.texts.draw(clips, generator)
    more_texts = data.texts.draw_labels(generator) if config.train.all_labels else None
    backgrounds = None
    if data.backgrounds is not None:
        crops = _random_starts(data.backgrounds, drawn.behind, n_frames, generator)
        backgrounds = _on(device, data.backgrounds.gather(drawn.behind, crops, n_frames))
    pictures = _on(device, data.log_mels.gather(data.rows[clips], starts, n_frames))
    draws = drawn.to(device)
    log_mel, n_valid_frames = augment(*pictures, draws, config.audio, config.augment, backgrounds)
    mixed = (drawn.partner, drawn.share) if config.augment.mixup else None
    batch = _batch(data, clips, drawn_texts, log_mel, n_valid_frames, mixed, own, more_texts)
    if data.teacher is not None:
        topics = torch.cat([drawn_texts[1]] + ([] if more_texts is None else [more_texts[1]]))
        batch = _taught(batch, data.teacher, topics, log_mel, n_valid_frames, config.train.teacher_part)
    return batch if data.silence is None else _with_silence(batch, draws.silent, data.silence, config, own)


def validation_batch(data: TrainingData, clips: Tensor, config: Config, device: torch.device) -> Batch:
    """The middle of each clip with its first text; draws no random numbers."""
    n_frames = n_window_frames(config.audio)
    starts = (data.log_mels.n_frames[data.rows[clips]] - n_frames).clamp_min(0) // 2
    pictures = _on(device, data.log_mels.gather(data.rows[clips], starts, n_frames))
    return _batch(data, clips, data.texts.first(clips), *pictures, None, slice(None))


def _batch(
    data: TrainingData, clips: Tensor, drawn_texts: tuple[Tensor, Tensor], log_mel: Tensor, n_valid_frames: Tensor,
    mixed: tuple[Tensor, Tensor] | None, own: slice, more_texts: tuple[Tensor, Tensor] | None = None,
) -> Batch:  # fmt: skip
    places, topics = drawn_texts
    places = places[own]
    if more_texts is not None:
        places, topics = torch.cat([places, more_texts[0]]), torch.cat([topics, more_texts[1]])
    same, targets = data.texts.same(clips, topics), data.targets[clips]
    if mixed is not None:
        same, targets = mix(same, *mixed), mix(targets, *mixed)
    device = log_mel.device
    if data.text_vectors is None:
        text = [data.texts.texts[place] for place in places.tolist()]
    else:
        text = data.text_vectors[places].to(device)
    return Batch(log_mel[own], n_valid_frames[own], text, same.to(device), targets.to(device))


def _taught(
    batch: Batch, teacher: Teacher, topics: Tensor, log_mel: Tensor, n_valid_frames: Tensor, part: float
) -> Batch:
    """A teacher's beliefs in the place of a part of what the labels say; clips without a label get them too."""
    believed = teacher.believe(log_mel, n_valid_frames)
    of_texts = teacher.of_texts(believed, topics, batch.same)
    return replace(batch, same=batch.same.lerp(of_texts, part), targets=batch.targets.lerp(believed, part))


def _with_silence(batch: Batch, silent: Tensor, pictures: Tensor, config: Config, own: slice) -> Batch:
    """Silence in the place of some clips: as far from one label as from any other, and described by no text."""
    log_mel, n_valid_frames = silence_clips(batch.log_mel, batch.n_valid_frames, silent[own], pictures)
    is_silent = (silent >= 0)[:, None]
    even = 0.0 if config.model.multilabel else 1 / max(batch.targets.shape[1], 1)
    return replace(
        batch, log_mel=log_mel, n_valid_frames=n_valid_frames, same=batch.same.masked_fill(is_silent, NO_TEXT),
        targets=batch.targets.masked_fill(is_silent, even),
    )  # fmt: skip


def _random_starts(store: LogMelStore, clips: Tensor, n_frames: int, generator: torch.Generator) -> Tensor:
    spare = (store.n_frames[clips] - n_frames).clamp_min(0)
    return (torch.rand(len(clips), generator=generator) * (spare + 1)).long()


def _on(device: torch.device, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0].to(device, non_blocking=True), pair[1].to(device, non_blocking=True)
