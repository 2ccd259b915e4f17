"""The training loop: steps, averages, early stopping, and going on bit for bit after every save."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from clapkit.config import Config
from clapkit.errors import CheckpointError, TrainingError
from clapkit.models.clap import CLAP
from clapkit.training import loop
from clapkit.training.batches import epoch_order, seeded_generator, training_batch
from clapkit.training.loop import Outcome
from clapkit.training.objective import batch_losses, total_loss

if TYPE_CHECKING:
    from tests.training.conftest import SmallTraining

CPU = torch.device("cpu")
FROZEN = "text.trainable=false"
PLAIN = [
    FROZEN, "encoder.dropout=0", "model.projection_dropout=0", "train.optimizer=sgd", "train.momentum=0",
    "train.weight_decay=0", "train.clip_norm=null", "train.schedule=constant", "train.learning_rate=0.01",
]  # fmt: skip
EVERYTHING = [
    "augment.mixup=0.8", "augment.background=0.5", "augment.eq_db=3", "train.ema=0.9", "train.accumulate=2",
    "encoder.dropout=0.3", "train.schedule=plateau", "train.plateau_patience=0", "train.patience=2", "train.epochs=5",
    "train.learning_rate=0.02",
]  # fmt: skip


class Killed(Exception):
    """What ends a training in these tests."""


def weights(clap: CLAP) -> dict[str, Tensor]:
    """Everything that forward depends on, buffers that a checkpoint leaves out too."""
    tensors = dict(clap.named_parameters()) | dict(clap.named_buffers())
    return {name: value.detach().clone() for name, value in tensors.items()}


def same_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def figures(outcome: Outcome) -> pd.DataFrame:
    return outcome.history.drop(columns="seconds")


def kill_after_save(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End the training right after it was saved for the ``number``-th time."""
    save, n_saved = loop.save_state, 0

    def save_and_die(*arguments: Any) -> None:
        nonlocal n_saved
        save(*arguments)
        n_saved += 1
        if n_saved == number:
            raise Killed

    monkeypatch.setattr(loop, "save_state", save_and_die)


def count_saves(monkeypatch: pytest.MonkeyPatch, train: Callable[[], Outcome]) -> tuple[Outcome, int]:
    save, n_saved = loop.save_state, 0

    def count(*arguments: Any) -> None:
        nonlocal n_saved
        save(*arguments)
        n_saved += 1

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", count)
        return train(), n_saved


def script_validation(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> list[dict[str, Tensor]]:
    """Let validation give these losses; returns the weights that it was shown at the end of each epoch."""
    shown: list[dict[str, Tensor]] = []

    def validate(clap: CLAP, *_: object) -> dict[str, float]:
        shown.append(weights(clap))
        return {"val_loss": losses[len(shown) - 1]}

    monkeypatch.setattr(loop, "validate", validate)
    return shown


RESUMED = {
    "everything, new tower": EVERYTHING,
    "everything, frozen tower": [*EVERYTHING, FROZEN],
    "sgd": [*EVERYTHING, FROZEN, "train.optimizer=sgd"],
    "rmsprop": [*EVERYTHING, FROZEN, "train.optimizer=rmsprop", "train.contrastive=sigmoid"],
    "one cycle": ["train.ema=0.5", FROZEN],
}


@pytest.mark.parametrize("overrides", RESUMED.values(), ids=RESUMED)
def test_a_training_killed_after_any_save_ends_with_the_same_bits(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    config = small.config(*overrides, "train.save_every_s=1e-9")
    whole, n_saves = count_saves(monkeypatch, lambda: small.fit(config, "whole"))
    assert n_saves >= whole.n_steps  # every step, so mid-epoch too
    for number in range(1, n_saves + 1):
        with monkeypatch.context() as patch:
            kill_after_save(patch, number)
            with pytest.raises(Killed):
                small.fit(config, f"killed{number}")
        lines: list[str] = []
        torch.manual_seed(number)  # a new process has drawn other numbers
        resumed = small.fit(config, f"killed{number}", report=lines.append)
        assert lines[0].startswith("going on after step")
        pd.testing.assert_frame_equal(figures(resumed), figures(whole), check_exact=True, obj=f"save {number}")
        assert same_weights(weights(resumed.network), weights(whole.network)), f"killed after save {number}"
        assert resumed.n_steps == whole.n_steps


def test_a_training_killed_at_each_save_in_turn_ends_with_the_same_bits(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small.config(*EVERYTHING, FROZEN, "train.save_every_s=1e-9")
    whole = small.fit(config, "whole")
    for _ in range(100):
        with monkeypatch.context() as patch:
            kill_after_save(patch, 1)
            try:
                resumed = small.fit(config, "killed")
                break
            except Killed:
                continue
    pd.testing.assert_frame_equal(figures(resumed), figures(whole), check_exact=True)
    assert same_weights(weights(resumed.network), weights(whole.network))


def test_a_kill_while_saving_keeps_the_state_before(small: SmallTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    from clapkit.training import state

    config = small.config(FROZEN, "train.save_every_s=1e-9")
    whole = small.fit(config, "whole")
    save_file, n_saved = state.save_file, 0

    def die_half_way(tensors: dict[str, Tensor], file: Any, metadata: dict[str, str]) -> None:
        nonlocal n_saved
        n_saved += 1
        save_file(tensors, file, metadata)
        if n_saved == 5:
            file.write_bytes(file.read_bytes()[:100])
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", die_half_way)
        with pytest.raises(Killed):
            small.fit(config, "killed")
    resumed = small.fit(config, "killed")
    assert same_weights(weights(resumed.network), weights(whole.network))


def test_saving_never_changes_what_is_learned(small: SmallTraining) -> None:
    seldom, often = (small.config(*EVERYTHING, f"train.save_every_s={seconds}") for seconds in (1e6, 1e-9))
    one, other = small.fit(seldom, "seldom"), small.fit(often, "often")
    assert same_weights(weights(one.network), weights(other.network))
    pd.testing.assert_frame_equal(figures(one), figures(other), check_exact=True)


def test_a_finished_training_is_not_repeated(small: SmallTraining) -> None:
    config = small.config(FROZEN)
    whole = small.fit(config)
    lines: list[str] = []
    again = small.fit(config, report=lines.append)
    assert not [line for line in lines if line.startswith("epoch")]
    assert same_weights(weights(again.network), weights(whole.network))
    pd.testing.assert_frame_equal(again.history, whole.history)


def test_the_state_of_another_run_is_refused(small: SmallTraining) -> None:
    config = small.config(FROZEN, "train.epochs=1")
    small.fit(config, run="one")
    with pytest.raises(CheckpointError, match="other settings or clips"):
        small.fit(config, run="other")


def test_history_has_a_row_for_each_epoch_and_means_over_its_batches(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, float]] = []

    def listen(*arguments: Any) -> dict[str, Tensor]:
        losses = batch_losses(*arguments)
        told.append({name: float(value.detach()) for name, value in losses.items()})
        return losses

    monkeypatch.setattr(loop, "batch_losses", listen)
    config = small.config(FROZEN, "train.accumulate=2", "train.head_weight=0.5", "train.contrastive_weight=2")
    history = small.fit(config).history
    assert len(told) == 3 * 3  # three batches of four of the thirteen clips
    assert history["epoch"].tolist() == [1, 2, 3]
    for epoch, row in history.iterrows():
        batches = pd.DataFrame(told[3 * epoch : 3 * epoch + 3]).mean()
        assert row["contrastive"] == pytest.approx(batches["contrastive"])
        assert row["head"] == pytest.approx(batches["head"])
        assert row["loss"] == pytest.approx(2 * batches["contrastive"] + 0.5 * batches["head"])
    assert pd.read_csv(small.folder / "state" / "history.csv")["loss"].tolist() == pytest.approx(history["loss"])


def batches_by_hand(small: SmallTraining, config: Config, clap: CLAP, numbers: range) -> list[dict[str, Tensor]]:
    """Gradients of single batches of the first epoch at the weights of ``clap``."""
    data = small.data(small.store, config)
    order = epoch_order(data.weights, seeded_generator(config.train.seed, "epoch", 0))
    gradients = []
    for number in numbers:
        clips = order[number * config.train.batch_size :][: config.train.batch_size]
        generator = seeded_generator(config.train.seed, "batch", number)
        batch = training_batch(data, clips, config, generator, slice(None), CPU)
        twin = copy.deepcopy(clap).train()
        total_loss(batch_losses(twin, config, batch), config).backward()
        gradients.append({name: each.grad for name, each in twin.named_parameters() if each.grad is not None})
    return gradients


@pytest.mark.parametrize("accumulate", [1, 2, 3, 5])
def test_a_step_follows_the_mean_gradient_of_its_batches(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """At a rate of nothing but a first step: weights fall by the rate times the mean over three batches at most."""
    config = small.config(*PLAIN, f"train.accumulate={accumulate}", "train.epochs=1")
    before = small.clap(config)
    n_first = min(accumulate, 3)
    gradients = batches_by_hand(small, config, before, range(n_first))
    steps: list[dict[str, Tensor]] = []
    bound = CLAP.bound_logit_scale

    def watch(clap: CLAP) -> None:
        bound(clap)
        steps.append(weights(clap))

    monkeypatch.setattr(CLAP, "bound_logit_scale", watch)
    outcome = small.fit(config)
    assert outcome.n_steps == len(steps) == math.ceil(3 / accumulate)
    for name, parameter in before.named_parameters():
        mean = sum(gradient[name] for gradient in gradients) / n_first
        torch.testing.assert_close(steps[0][name], parameter.detach() - 0.01 * mean, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_gradients_are_clipped_by_their_common_norm(small: SmallTraining, clip_norm: float) -> None:
    config = small.config(*PLAIN, f"train.clip_norm={clip_norm}", "train.epochs=1", "train.accumulate=3")
    before = small.clap(config)
    gradients = batches_by_hand(small, config, before, range(3))
    mean = {name: sum(each[name] for each in gradients) / 3 for name in gradients[0]}
    norm = math.sqrt(sum(float(each.double().square().sum()) for each in mean.values()))
    after = weights(small.fit(config).network)
    for name, parameter in before.named_parameters():
        expected = parameter.detach() - 0.01 * mean[name] * min(1.0, clip_norm / norm)
        torch.testing.assert_close(after[name], expected, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("decay", [0.9, 0.99])
@pytest.mark.parametrize("tower", [FROZEN, "text.context_length=64"])
def test_with_ema_the_scored_weights_are_the_average(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch, decay: float, tower: str
) -> None:
    seen: list[dict[str, Tensor]] = []
    bound = CLAP.bound_logit_scale

    def watch(clap: CLAP) -> None:
        bound(clap)
        seen.append(weights(clap))

    monkeypatch.setattr(CLAP, "bound_logit_scale", watch)
    scored = weights(small.fit(small.config(tower, f"train.ema={decay}", "train.learning_rate=0.02")).network)
    assert len(seen) == 9
    differs = False
    for name, value in scored.items():
        if not value.is_floating_point():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, seen[-1][name]), f"{name} is no number to average"
            continue
        average = seen[0][name].double()
        for each in seen[1:]:
            average = decay * average + (1 - decay) * each[name].double()
        torch.testing.assert_close(value.double(), average, atol=1e-5, rtol=1e-4, msg=name)
        differs |= not torch.allclose(value, seen[-1][name], atol=1e-4)
    assert differs


def test_validation_looks_at_the_averaged_weights(small: SmallTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = script_validation(monkeypatch, [3.0, 2.0, 1.0])
    outcome = small.fit(small.config(FROZEN, "train.ema=0.9", "train.patience=5"))
    assert same_weights(shown[-1], weights(outcome.network))


@pytest.mark.parametrize("ema", ["0", "0.9"])
@pytest.mark.parametrize(("patience", "n_epochs"), [(1, 4), (2, 7), (3, 8)])
def test_early_stopping_stops_and_brings_back_the_best_weights(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch, ema: str, patience: int, n_epochs: int
) -> None:
    losses = [5.0, 4.0, 3.0, 3.5, 2.0, 2.5, 2.0, 2.5, 2.5, 2.5, 1.0, 1.0]
    shown = script_validation(monkeypatch, losses)
    config = small.config(FROZEN, f"train.patience={patience}", "train.epochs=12", f"train.ema={ema}")
    outcome = small.fit(config)
    assert len(outcome.history) == n_epochs
    best = losses.index(min(losses[:n_epochs]))
    assert same_weights(weights(outcome.network), shown[best])
    assert not same_weights(shown[best], shown[-1])


def test_without_patience_all_epochs_are_trained_and_the_last_weights_count(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = script_validation(monkeypatch, [1.0, 2.0, 3.0, 4.0, 5.0])
    outcome = small.fit(small.config(FROZEN, "train.schedule=plateau", "train.epochs=5"))
    assert len(outcome.history) == 5
    assert same_weights(weights(outcome.network), shown[-1])


def test_the_rate_falls_on_a_plateau(small: SmallTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    script_validation(monkeypatch, [1.0, 2.0, 2.0, 2.0, 0.5, 0.6])
    plateau = ["train.schedule=plateau", "train.plateau_patience=1", "train.plateau_factor=0.1"]
    rates = small.fit(small.config(FROZEN, *plateau, "train.epochs=6", "train.learning_rate=0.01")).history
    assert rates["learning_rate"].tolist() == pytest.approx([0.01, 0.01, 0.01, 0.001, 0.001, 0.001])


def test_validation_changes_nothing_that_is_learned(small: SmallTraining) -> None:
    """Watching draws no random numbers and leaves running statistics alone."""
    watched = small.fit(small.config(FROZEN, "train.patience=100"), "watched")
    alone = small.fit(small.config(FROZEN), "alone")
    assert watched.history["val_loss"].notna().all()
    assert watched.history["val_accuracy"].between(0, 1).all()
    assert watched.history["loss"].tolist() == alone.history["loss"].tolist()


def test_validation_loss_is_the_loss_without_augmentation(small: SmallTraining) -> None:
    from clapkit.training.objective import validate

    config = small.config(*PLAIN, "train.batch_size=7")
    clap, data = small.clap(config).train(), small.data(small.validation_store, config)
    found = validate(clap, data, CPU)
    assert clap.training
    clap.eval()
    pictures, valid = data.log_mels.gather(torch.arange(7), (data.log_mels.n_frames - 21).clamp_min(0) // 2, 21)
    texts = data.text_vectors[data.texts.first(torch.arange(7))[0]]
    with torch.no_grad():
        outputs = clap(pictures, valid, texts)
    labels = torch.arange(7) % 3
    same = (labels[:, None] == labels[None]).float()
    logits = clap.scale().detach() * outputs["audio"] @ outputs["text"].T
    rows = (same / same.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1)
    columns = (same / same.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0)
    contrastive = -(rows.mean() + columns.mean()) / 2
    head = torch.nn.functional.cross_entropy(outputs["head"], labels, label_smoothing=config.train.label_smoothing)
    assert found["val_loss"] == pytest.approx(float(contrastive + head), rel=1e-5)
    assert found["val_accuracy"] == pytest.approx(float((outputs["head"].argmax(1) == labels).float().mean()))


def test_the_loss_falls(small: SmallTraining) -> None:
    history = small.fit(small.config(FROZEN, "train.epochs=30", "augment.mixup=0", "encoder.dropout=0")).history
    assert history["loss"].iloc[-3:].mean() < 0.8 * history["loss"].iloc[0]


@pytest.mark.parametrize("ema", ["0", "0.9"])
def test_a_loss_that_is_no_number_ends_training_with_one_line(small: SmallTraining, ema: str) -> None:
    wild = [*PLAIN, "train.learning_rate=1e30", f"train.ema={ema}"]
    with pytest.raises(TrainingError, match=r"became (nan|inf).*in epoch \d.*learning_rate") as caught:
        small.fit(small.config(*wild))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_a_bad_batch_anywhere_is_noticed(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    n_seen = 0

    def spoil(*arguments: Any) -> dict[str, Tensor]:
        nonlocal n_seen
        n_seen += 1
        losses = batch_losses(*arguments)
        return {name: value * (math.nan if n_seen == 5 else 1) for name, value in losses.items()}

    monkeypatch.setattr(loop, "batch_losses", spoil)
    with pytest.raises(TrainingError, match="in epoch 2"):
        small.fit(small.config(FROZEN, f"train.accumulate={accumulate}"))


def test_the_callers_random_numbers_are_left_alone(small: SmallTraining) -> None:
    config = small.config(FROZEN)
    accelerator = loop.Accelerator(cpu=True)
    clap, data = small.clap(config), small.data(small.store, config)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    loop.fit(clap, data, None, accelerator, small.folder / "state", "run", lambda line: None)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_temperature_stays_bounded(small: SmallTraining) -> None:
    config = small.config(*PLAIN, "model.temperature=0.0101", "train.learning_rate=5", "train.epochs=2")
    try:
        scale = float(small.fit(config).network.scale().detach())
    except TrainingError:
        pytest.skip("the rate was too high")
    assert scale <= 100.001


@pytest.mark.parametrize("weights_of", [[0.25] * 13, [1.0] * 4 + [0.1] * 9])
def test_an_epoch_smaller_than_a_batch_still_trains(
    small: SmallTraining, monkeypatch: pytest.MonkeyPatch, weights_of: list[float]
) -> None:
    """Clips that are drawn seldom may leave fewer of them than the batch size."""
    config = small.config(FROZEN, "train.batch_size=8")
    make = type(small).data

    def seldom(self: SmallTraining, *arguments: Any) -> Any:
        data = make(self, *arguments)
        data.weights = torch.tensor(weights_of)
        return data

    monkeypatch.setattr(type(small), "data", seldom)
    history = small.fit(config).history
    assert history["loss"].map(math.isfinite).all()
