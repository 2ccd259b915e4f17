"""Training batches: every draw follows from the seed and its number, and slices of processes make one batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from clapkit.audio.augment import draw_augmentation
from clapkit.audio.windows import n_window_frames
from clapkit.config import AugmentConfig, Config, load_config
from clapkit.data.log_mels import LogMelStore
from clapkit.data.manifest import make_table
from clapkit.data.packs import Pack
from clapkit.data.prompts import training_texts
from clapkit.training.batches import (
    Batch,
    TrainingData,
    epoch_order,
    n_drawn,
    seeded_generator,
    training_batch,
    validation_batch,
)
from clapkit.training.texts import TrainingTexts

CPU = torch.device("cpu")
SILENT = [
    "augment.time_shift=0", "augment.gain_db=0", "augment.background=0", "augment.mixup=0", "augment.n_masks=0",
]  # fmt: skip
LIVELY = ["augment.time_shift=1", "augment.eq_db=6", "augment.background=0.7", "augment.mixup=0.9"]
SIZES = ["audio.sample_rate=1000", "audio.n_fft=256", "audio.hop_length=100", "audio.window_s=1.0", "audio.n_mels=8"]
N_WINDOW = 11  # 1000 samples, a frame every 100, and one at the very end
LABELS = ("dog", "rain", "siren")
ALL = slice(None)

StoreMaker = Callable[..., LogMelStore]


@pytest.fixture
def make_store(tmp_path: Path) -> StoreMaker:
    """Pictures whose value is ``clip number + frame number / 64``, so that a crop shows where it was cut."""

    def make(*lengths: int, n_channels: int = 1, name: str = "values.bin") -> LogMelStore:
        rows = [clip + np.arange(length) / 64 for clip, length in enumerate(lengths)]
        values = np.repeat(np.concatenate(rows), n_channels * 8).astype(np.float16)
        values.tofile(tmp_path / name)
        sizes = np.array(lengths) * n_channels * 8
        return LogMelStore(Pack(tmp_path / name, np.cumsum(sizes) - sizes, sizes), n_channels, 8)

    return make


def config_of(overrides: list[str]) -> Config:
    return load_config([], [*SIZES, *overrides])


def data_of(store: LogMelStore, *, frozen: bool = False, backgrounds: LogMelStore | None = None) -> TrainingData:
    labels = [LABELS[number % 3] for number in range(len(store))]
    texts = TrainingTexts(make_table(path=[str(number) for number in range(len(store))], label=labels))
    vectors = torch.arange(len(texts.texts), dtype=torch.float32)[:, None] if frozen else None
    targets = torch.eye(3)[[number % 3 for number in range(len(store))]]
    rows = torch.arange(len(store))
    return TrainingData(store, rows, torch.ones(len(store)), texts, vectors, targets, backgrounds)


def batch_of(
    data: TrainingData, clips: list[int], config: Config, seed: int = 0, step: int = 0, own: slice = ALL
) -> Batch:
    return training_batch(data, torch.tensor(clips), config, seeded_generator(seed, "batch", step), own, CPU)


def equal(first: Batch, second: Batch) -> bool:
    tensors = ("log_mel", "n_valid_frames", "same", "targets")
    texts_equal = torch.equal(first.text, second.text) if isinstance(first.text, Tensor) else first.text == second.text
    return texts_equal and all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors)


def test_generators_repeat_and_differ_by_seed_purpose_and_number() -> None:
    asked = [(seed, purpose, number) for seed in (0, 1, 11) for purpose in ("batch", "epoch") for number in (0, 1, 11)]
    drawn = [torch.rand(4, generator=seeded_generator(*each)).tolist() for each in asked]
    again = [torch.rand(4, generator=seeded_generator(*each)).tolist() for each in asked]
    assert drawn == again
    assert len({tuple(each) for each in drawn}) == len(asked)


@pytest.mark.parametrize("seed", range(3))
def test_equal_weights_give_a_permutation(seed: int) -> None:
    order = epoch_order(torch.ones(50), seeded_generator(seed, "epoch", 0))
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != list(range(50))


def test_half_weights_draw_half_the_clips_and_others_the_next_time() -> None:
    orders = [epoch_order(torch.full((40,), 0.5), seeded_generator(0, "epoch", epoch)).tolist() for epoch in range(20)]
    assert {len(order) for order in orders} == {20}
    assert all(len(set(order)) == 20 for order in orders)
    assert {clip for order in orders for clip in order} == set(range(40))
    assert orders[0] != orders[1]


def test_a_weight_of_two_draws_twice_and_of_nothing_never() -> None:
    order = epoch_order(torch.tensor([2.0, 1.0, 0.0, 2.0]), seeded_generator(0, "epoch", 0))
    assert sorted(order.tolist()) == [0, 0, 1, 3, 3]


def test_mixed_weights_come_as_often_as_they_say_on_average() -> None:
    weights = torch.tensor([1.5, 0.25, 1.0, 0.25, 2.0])
    orders = [epoch_order(weights, seeded_generator(0, "epoch", epoch)) for epoch in range(2000)]
    assert {len(order) for order in orders} == {5}
    counts = torch.bincount(torch.cat(orders), minlength=5) / 2000
    assert counts[2] == 1
    assert counts[4] == 2
    assert counts[0] > 1.4
    assert 0.1 < counts[1] < 0.4
    assert float(counts[1]) == pytest.approx(float(counts[3]), abs=0.05)


def test_the_order_follows_from_its_generator() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return epoch_order(torch.ones(30), seeded_generator(seed, "epoch", epoch)).tolist()

    assert order(3, 4) == order(3, 4)
    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(orders[i] != orders[j] for i in range(9) for j in range(i))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1.0] * 10, 10), ([0.5] * 20, 10), ([2.0] * 10, 20), ([1.0] * 8 + [0.25] * 8, 10), ([0.1], 0), ([2.5, 2.5], 5)],
)
def test_an_epoch_has_as_many_clips_as_its_weights_say(weights: list[float], expected: int) -> None:
    assert n_drawn(torch.tensor(weights)) == expected
    assert len(epoch_order(torch.tensor(weights), seeded_generator(0, "epoch", 0))) == expected


def test_a_window_has_the_frames_that_the_front_end_makes() -> None:
    from clapkit.audio.log_mel import LogMel

    for overrides in ([], ["audio.hop_length=320", "audio.sample_rate=16000"], ["audio.hop_length=99"]):
        audio = config_of(overrides).audio
        n_samples = round(audio.window_s * audio.sample_rate)
        picture, _ = LogMel(audio)(torch.zeros(1, 1, n_samples), torch.tensor([n_samples]))
        assert n_window_frames(audio) == picture.shape[-1]


def test_without_augmentation_a_batch_is_the_clips_in_the_order_asked_for(make_store: StoreMaker) -> None:
    data, config = data_of(make_store(3, N_WINDOW, 5)), config_of(SILENT)
    batch = batch_of(data, [2, 0, 2, 1], config)
    assert batch.log_mel.shape == (4, 1, 8, N_WINDOW)
    assert batch.log_mel.dtype == torch.float32
    assert batch.n_valid_frames.tolist() == [5, 3, 5, N_WINDOW]
    for picture, clip, n_valid in zip(batch.log_mel[:, 0], [2, 0, 2, 1], [5, 3, 5, N_WINDOW], strict=True):
        expected = clip + torch.arange(n_valid) / 64
        assert torch.equal(picture[:, :n_valid], expected.expand(8, n_valid))
        assert not picture[:, n_valid:].any()
    assert torch.equal(batch.targets, torch.eye(3)[[2, 0, 2, 1]])


def test_rows_say_where_in_the_store_a_clip_is(make_store: StoreMaker) -> None:
    store = make_store(5, 6, 7, 8)
    labels = make_table(path=["a", "b"], label=["dog", "rain"])
    data = TrainingData(
        store, torch.tensor([3, 1]), torch.ones(2), TrainingTexts(labels), None, torch.eye(2)
    )  # fmt: skip
    for batch in (
        batch_of(data, [0, 1], config_of(SILENT)),
        validation_batch(data, torch.tensor([0, 1]), config_of(SILENT), CPU),
    ):
        assert batch.n_valid_frames.tolist() == [8, 6]
        assert batch.log_mel[:, 0, 0, 0].tolist() == [3, 1]


def test_long_clips_are_cut_at_random_places_all_over(make_store: StoreMaker) -> None:
    data, config = data_of(make_store(N_WINDOW + 6)), config_of(SILENT)
    starts = []
    for step in range(150):
        batch = batch_of(data, [0], config, step=step)
        assert batch.n_valid_frames.tolist() == [N_WINDOW]
        assert (batch.log_mel[0, 0, 0].diff() == 1 / 64).all()
        starts.append(round(float(batch.log_mel[0, 0, 0, 0]) * 64))
    assert set(starts) == set(range(7))


def test_both_channels_are_cut_at_the_same_place(make_store: StoreMaker) -> None:
    data, config = data_of(make_store(60, 60, n_channels=2)), config_of([*SILENT, "audio.n_channels=2"])
    log_mel = batch_of(data, [0, 1], config).log_mel
    assert log_mel.shape == (2, 2, 8, N_WINDOW)
    assert torch.equal(log_mel[:, 0], log_mel[:, 1])


@pytest.mark.parametrize("frozen", [False, True])
def test_a_batch_repeats_with_seed_and_step_and_differs_with_others(make_store: StoreMaker, frozen: bool) -> None:
    data, config, clips = data_of(make_store(*[40] * 12), frozen=frozen), config_of(LIVELY), list(range(12))
    asked = [(0, 0), (0, 1), (1, 0)]
    batches = [batch_of(data, clips, config, *each) for each in asked]
    torch.manual_seed(5)  # a batch never looks at the global state
    assert all(equal(batch_of(data, clips, config, *each), batch) for each, batch in zip(asked, batches, strict=True))
    assert not any(torch.equal(one.log_mel, batches[0].log_mel) for one in batches[1:])


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_slices_of_two_processes_make_the_batch_of_one(make_store: StoreMaker, frozen: bool, folder: bool) -> None:
    sounds = make_store(*range(5, 40), name="backgrounds.bin") if folder else None
    data = data_of(make_store(*range(4, 16)), frozen=frozen, backgrounds=sounds)
    config, clips = config_of(LIVELY), list(range(12))
    whole = batch_of(data, clips, config)
    first, second = (batch_of(data, clips, config, own=own) for own in (slice(0, 6), slice(6, 12)))
    assert torch.equal(torch.cat([first.log_mel, second.log_mel]), whole.log_mel)
    assert torch.equal(torch.cat([first.n_valid_frames, second.n_valid_frames]), whole.n_valid_frames)
    if frozen:
        assert torch.equal(torch.cat([first.text, second.text]), whole.text)
    else:
        assert first.text + second.text == whole.text
    for part in (first, second):  # every process needs the targets of the whole batch
        assert torch.equal(part.same, whole.same)
        assert torch.equal(part.targets, whole.targets)


def test_mixup_mixes_labels_and_pairs_as_it_mixes_pictures(make_store: StoreMaker) -> None:
    data, config = data_of(make_store(*[N_WINDOW] * 9)), config_of([*SILENT, "augment.mixup=1"])
    clips = torch.arange(9)
    batch = batch_of(data, clips.tolist(), config)
    generator = seeded_generator(0, "batch", 0)
    torch.rand(9, generator=generator)  # places of the crops
    draws = draw_augmentation(9, config.augment, generator)
    own = torch.eye(3)[clips % 3]
    share = draws.share[:, None]
    torch.testing.assert_close(batch.targets, share * own + (1 - share) * own[draws.partner])
    alike = (clips[:, None] % 3 == clips[None] % 3).float()
    torch.testing.assert_close(batch.same, share * alike + (1 - share) * alike[draws.partner])
    torch.testing.assert_close(batch.targets.sum(dim=1), torch.ones(9))


def test_texts_of_a_batch_belong_to_its_clips(make_store: StoreMaker) -> None:
    data, config = data_of(make_store(*[N_WINDOW] * 6)), config_of(SILENT)
    seen = [batch_of(data, [0, 4, 5], config, step=step).text for step in range(40)]
    for texts in seen:
        assert all(text in training_texts(label) for text, label in zip(texts, LABELS, strict=True))
    assert {texts[0] for texts in seen} == set(training_texts("dog"))


def test_a_frozen_towers_vectors_are_those_of_the_drawn_texts(make_store: StoreMaker) -> None:
    store, config = make_store(*[N_WINDOW] * 6), config_of(SILENT)
    texts = batch_of(data_of(store), [0, 4, 5], config).text
    vectors = batch_of(data_of(store, frozen=True), [0, 4, 5], config).text
    all_texts = data_of(store).texts.texts
    assert [all_texts[int(place)] for place in vectors[:, 0]] == texts


def test_backgrounds_come_from_their_own_sounds(make_store: StoreMaker) -> None:
    """Three clips, and a hundred louder sounds behind them."""
    sounds = make_store(*[30] * 100, name="backgrounds.bin")
    data = data_of(make_store(*[N_WINDOW] * 3), backgrounds=sounds)
    config = config_of([*SILENT, "augment.background=1", "augment.background_snr_db=[0, 0]"])
    plain = batch_of(data, [0, 1, 2], config_of(SILENT))
    laid = batch_of(data, [0, 1, 2], config)
    assert torch.equal(laid.n_valid_frames, plain.n_valid_frames)
    change_db = (laid.log_mel - plain.log_mel) * config.audio.std_db
    assert (change_db > 0).all()  # as loud as the clip itself: about 3 dB more
    torch.testing.assert_close(change_db.mean(dim=(1, 2, 3)), torch.full((3,), 3.0), atol=0.2, rtol=0)


def test_validation_takes_the_middle_and_the_first_text_and_draws_nothing(make_store: StoreMaker) -> None:
    data, config = data_of(make_store(N_WINDOW + 6, 4, N_WINDOW + 1)), config_of(LIVELY)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches = [validation_batch(data, torch.tensor([0, 1, 2]), config, CPU) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(*batches)
    batch = batches[0]
    assert batch.n_valid_frames.tolist() == [N_WINDOW, 4, N_WINDOW]
    assert [round(float(value) * 64) for value in batch.log_mel[:, 0, 0, 0]] == [3, 64, 2 * 64]
    first = [data.texts.texts[place] for place in data.texts.first(torch.tensor([0, 1, 2]))[0].tolist()]
    assert batch.text == first
    assert torch.equal(batch.targets, torch.eye(3))
    assert torch.equal(batch.same, torch.eye(3))


def test_settings_of_augmentation_are_those_of_the_config(make_store: StoreMaker) -> None:
    data = data_of(make_store(*[N_WINDOW] * 4))
    loud = config_of([*SILENT, "augment.gain_db=40"])
    change = (batch_of(data, [0, 1, 2, 3], loud).log_mel - batch_of(data, [0, 1, 2, 3], config_of(SILENT)).log_mel)[
        :, 0
    ]
    assert isinstance(loud.augment, AugmentConfig)
    assert torch.allclose(change, change[:, :1, :1].expand_as(change), atol=1e-5)
    assert change[:, 0, 0].unique().numel() == 4
    assert change.abs().max() <= 40 / loud.audio.std_db


def test_silence_has_no_label_and_no_text(make_store: StoreMaker) -> None:
    config = config_of(["augment.silence=0.5", "augment.mixup=0"])
    data = data_of(make_store(80, 80, 80, 80, 80, 80))
    data.silence = torch.full((64, 1, 8, 11), -9.0)
    batch = batch_of(data, list(range(6)), config)
    silent = (batch.log_mel == -9).all(dim=(1, 2, 3))
    assert 0 < silent.sum() < 6
    assert torch.allclose(batch.targets[silent], torch.full((3,), 1 / 3))
    assert torch.equal(batch.targets[~silent], data.targets[~silent])
    assert len(batch.same[silent].unique()) == 1  # every text alike
    assert batch.same[silent].max() < 1e-3
    assert (batch.same[~silent].max(dim=1).values == 1).all()
    never = config_of(["augment.silence=0.0", "augment.mixup=0"])
    assert not (batch_of(data_of(data.log_mels), list(range(6)), never).log_mel == -9).any()


@pytest.mark.parametrize("frozen", [True, False])
def test_all_labels_adds_a_text_of_each_behind_the_clips_own(make_store: StoreMaker, frozen: bool) -> None:
    data = data_of(make_store(*range(4, 16)), frozen=frozen)
    config = config_of(["train.all_labels=true", "augment.mixup=0"])
    whole = batch_of(data, [0, 1, 3, 4], config)  # labels 0, 1, 0, 1
    assert whole.same.shape == (4, 4 + 3)
    assert whole.same[:, 4:].tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]]
    assert len(whole.text) == 7
    first, second = (batch_of(data, [0, 1, 3, 4], config, own=own) for own in (slice(0, 2), slice(2, 4)))
    assert len(first.text) == len(second.text) == 2 + 3
    assert [str(text) for text in first.text[2:]] == [str(text) for text in second.text[2:]]
    assert torch.equal(first.same, whole.same)
