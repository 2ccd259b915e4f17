"""Whole training runs: resuming, overwriting, seeds, frozen and fine-tuned text towers, captions."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import clapkit
from clapkit.config import Config, TextConfig
from clapkit.data.datasets import load_manifest
from clapkit.data.manifest import Manifest
from clapkit.data.splits import Split
from clapkit.errors import CheckpointError, ClapkitError, DatasetError, StorageError
from clapkit.evaluation.evaluate import evaluate
from clapkit.evaluation.plots import plot_augmentations
from clapkit.evaluation.report import write_run_report
from clapkit.evaluation.run_folder import (
    CLASSES_FILE,
    CONFUSION_FILE,
    CURVES_FILE,
    HISTORY_FILE,
    PREDICTIONS_FILE,
    REPORT_FILE,
    RUN_FILE,
    SAMPLES_FILE,
)
from clapkit.model import AudioTextModel
from clapkit.training.batches import TrainingData
from clapkit.training.plan import plan_run
from clapkit.training.record import SPLIT_FILE
from clapkit.training.run import train_and_test
from clapkit.training.state import TrainingState, save_state
from clapkit.training.texts import TrainingTexts

CPU = torch.device("cpu")


class Killed(Exception):
    """What ends a run in these tests."""


@contextmanager
def _killed_after(epoch: int) -> Iterator[None]:
    """Let the training end right after this epoch was saved."""

    def save_and_die(folder: Path, state: TrainingState, run: str) -> None:
        save_state(folder, state, run)
        if len(state.history) >= epoch:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clapkit.training.loop.save_state", save_and_die)
        try:
            yield
        except Killed:
            return
    pytest.fail("the training was not killed")


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module", autouse=True)
def _few_pictures() -> Iterator[None]:
    """Drawing takes longer than these trainings; one test asks for the pictures."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_augmentations", "write_run_report"):
            patch.setattr(f"clapkit.training.run.{name}", lambda *_: None)
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clapkit.training.run.plot_augmentations", plot_augmentations)
    monkeypatch.setattr("clapkit.training.run.write_run_report", write_run_report)


@pytest.fixture(scope="module")
def manifest(sounds: Path) -> Manifest:
    return load_manifest("folder", sounds)


@pytest.fixture(scope="module")
def split(manifest: Manifest) -> Split:
    return plan_run(Config(), manifest, Path("unused")).split


@pytest.fixture(scope="module")
def train(manifest: Manifest) -> Callable[..., AudioTextModel]:
    def run(config: Config, output: Path, **options: object) -> AudioTextModel:
        return train_and_test(plan_run(config, manifest, output), device=CPU, **options)

    return run


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pretrained BERT in a folder."""
    from transformers import BertConfig, BertModel

    from clapkit.models.tokenizer import train_wordpiece

    folder = tmp_path_factory.mktemp("tower")
    tokenizer = train_wordpiece(["low middle high", "the sound of a recording", "rain and whistles"], 200, 64)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["bert-small", "gpt2-small", "frozen"])
def config(request: pytest.FixtureRequest, tiny_config: Config, tower: Path) -> Config:
    """Three epochs with each manner of text tower."""
    if request.param == "frozen":
        return _changed(tiny_config, text=TextConfig(name=str(tower), trainable=False), epochs=3)
    text = tiny_config.text.model_copy(update={"name": request.param})
    return _changed(tiny_config, text=text, epochs=3)


@pytest.fixture
def quick(tiny_config: Config) -> Config:
    """One epoch, with the text tower whose tokenizer is the same every time."""
    return _changed(tiny_config, text=tiny_config.text.model_copy(update={"name": "gpt2-small"}), epochs=1)


def _changed(config: Config, text: TextConfig | None = None, **train: object) -> Config:
    return config.model_copy(update={"text": text or config.text, "train": config.train.model_copy(update=train)})


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def _identical(first: Path, second: Path) -> bool:
    one, other = _weights(first), _weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(
    config: Config, train: Callable[..., AudioTextModel], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(config, output)
    return output


# The tokenizer is trained anew, so its words must get the same places again.
def test_a_resumed_run_ends_with_the_same_bits(
    config: Config, uninterrupted: Path, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    with _killed_after(1):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with _killed_after(2):
        train(config, tmp_path / "run", resume=True)
    torch.manual_seed(999)  # a new process has drawn other numbers
    lines: list[str] = []
    train(config, tmp_path / "run", resume=True, report=lines.append)
    assert any(line == "going on after step 2 of 3" for line in lines)
    assert [line[:9] for line in lines if line.startswith("epoch")] == ["epoch 3/3"]
    assert _identical(tmp_path / "run", uninterrupted)


def test_the_same_seed_gives_the_same_weights(
    config: Config, uninterrupted: Path, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    torch.manual_seed(999)
    train(config, tmp_path / "again")
    assert _identical(tmp_path / "again", uninterrupted)


def test_another_seed_gives_other_weights(quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path) -> None:
    train(quick, tmp_path / "a")
    train(_changed(quick, seed=1), tmp_path / "b")
    assert not _identical(tmp_path / "a", tmp_path / "b")


def test_a_run_leaves_the_checkpoint_and_nothing_else(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    train(quick, tmp_path / "deep" / "run")
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "run"]


def test_the_returned_model_is_the_saved_one(
    quick: Config, train: Callable[..., AudioTextModel], sounds: Path, tmp_path: Path
) -> None:
    model, file = train(quick, tmp_path / "run"), sounds / "low" / "1.wav"
    loaded = clapkit.load(tmp_path / "run", device="cpu")
    assert np.array_equal(model.embed_audio(file), loaded.embed_audio(file))
    assert np.array_equal(model.embed_text("low"), loaded.embed_text("low"))
    assert loaded.checkpoint.metrics == model.checkpoint.metrics


def test_a_checkpoint_says_how_it_was_trained(tiny_model: AudioTextModel, split: Split) -> None:
    record = tiny_model.checkpoint
    assert record.sources == sorted(split.train["source"])
    assert (record.training["dataset"], record.training["n_clips"], record.training["epochs"]) == ("folder", 15, 2)
    assert record.training["split"] == split.note
    assert set(record.metrics) == {"head", "zeroshot", "retrieval"}
    assert record.metrics["head"]["n_clips"] == len(split.test) == 3
    assert record.metrics["head"]["n_seen_in_training"] == 0


def test_an_existing_checkpoint_is_refused_before_any_work(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    lines: list[str] = []
    with pytest.raises(StorageError, match="add --overwrite"):
        train(quick, tmp_path / "run", report=lines.append)
    with pytest.raises(StorageError, match="nothing is left to resume"):
        train(quick, tmp_path / "run", resume=True, report=lines.append)
    assert lines == []


def test_an_unfinished_run_is_not_lost_by_accident(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    with _killed_after(1):
        train(quick, tmp_path / "run")
    with pytest.raises(StorageError, match="unfinished run; add --resume to go on or --overwrite"):
        train(quick, tmp_path / "run")
    train(quick, tmp_path / "run", overwrite=True)
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_overwriting_and_resuming_at_once_is_refused(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    with pytest.raises(ClapkitError, match="give only one"):
        train(quick, tmp_path / "run", overwrite=True, resume=True)


def test_resuming_with_other_settings_is_refused(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    with _killed_after(1):
        train(_changed(quick, epochs=2), tmp_path / "run")
    with pytest.raises(CheckpointError, match="other settings or clips"):
        train(_changed(quick, epochs=2, learning_rate=1e-3), tmp_path / "run", resume=True)
    train(_changed(quick, epochs=2), tmp_path / "run", resume=True)  # the state is still there


def test_resuming_with_other_clips_is_refused(quick: Config, manifest: Manifest, tmp_path: Path) -> None:
    run = plan_run(quick, manifest, tmp_path / "run")
    with _killed_after(1):
        train_and_test(run, device=CPU)
    fewer = replace(run, split=replace(run.split, train=run.split.train.iloc[1:]))
    with pytest.raises(CheckpointError, match="other settings or clips"):
        train_and_test(fewer, device=CPU, resume=True)


def test_resuming_may_save_more_often(quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path) -> None:
    with _killed_after(1):
        train(quick, tmp_path / "run")
    lines: list[str] = []
    train(_changed(quick, save_every_s=1.0), tmp_path / "run", resume=True, report=lines.append)
    assert any(line.startswith("going on") for line in lines)


def test_a_damaged_state_is_one_readable_line(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    with _killed_after(1):
        train(quick, tmp_path / "run")
    state = tmp_path / "run.training" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged") as error:
        train(quick, tmp_path / "run", resume=True)
    assert "\n" not in str(error.value)


def test_resuming_without_a_state_starts_at_the_beginning(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    train(quick, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_full_disk_ends_training_with_a_way_on(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("clapkit.training.state.save_file", _full_disk)
        with pytest.raises(StorageError, match=r"no space left.*--resume"):
            train(quick, tmp_path / "run")
    train(quick, tmp_path / "run", resume=True)


def test_overwriting_keeps_the_old_checkpoint_until_the_new_one_is_done(
    quick: Config, train: Callable[..., AudioTextModel], sounds: Path, tmp_path: Path
) -> None:
    old = train(quick, tmp_path / "run").embed_audio(sounds / "low" / "0.wav")
    other = _changed(quick, seed=1, epochs=2)
    with _killed_after(1):
        train(other, tmp_path / "run", overwrite=True)
    assert np.array_equal(clapkit.load(tmp_path / "run", device="cpu").embed_audio(sounds / "low" / "0.wav"), old)
    train(other, tmp_path / "run", overwrite=True)
    assert clapkit.load(tmp_path / "run", device="cpu").config.train.seed == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_a_full_disk_at_the_end_keeps_the_old_checkpoint_and_the_finished_epochs(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(quick, tmp_path / "run")
    other = _changed(quick, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr("clapkit.models.checkpoint.save_file", _full_disk)
        with pytest.raises(StorageError, match="no space left"):
            train(other, tmp_path / "run", overwrite=True)
    assert clapkit.load(tmp_path / "run", device="cpu").config.train.seed == 0
    lines: list[str] = []
    train(other, tmp_path / "run", resume=True, report=lines.append)
    assert "going on after step 1 of 1" in lines
    assert clapkit.load(tmp_path / "run", device="cpu").config.train.seed == 1


def test_a_killed_overwriting_run_can_be_resumed(
    quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    train(quick, tmp_path / "run")
    other = _changed(quick, seed=1, epochs=2)
    with _killed_after(1):
        train(other, tmp_path / "run", overwrite=True)
    train(other, tmp_path / "run", resume=True)
    assert clapkit.load(tmp_path / "run", device="cpu").config.train.seed == 1


@pytest.mark.parametrize("config", ["frozen"], indirect=True)
def test_a_frozen_text_tower_leaves_its_hash_and_its_vectors_but_no_weights(
    config: Config, uninterrupted: Path
) -> None:
    assert not [name for name in _weights(uninterrupted) if name.startswith("text_encoder")]
    assert not (uninterrupted / "text").exists()
    checkpoint = clapkit.load(uninterrupted, device="cpu").checkpoint
    assert len(checkpoint.text_sha256) == 64
    assert {"low", "the sound of middle", "a recording of high"} <= set(checkpoint.texts)
    np.testing.assert_allclose(np.linalg.norm(list(checkpoint.texts.values()), axis=1), 1, atol=1e-5)


def test_a_trained_text_tower_is_inside_the_checkpoint(tiny_run: Path) -> None:
    assert [name for name in _weights(tiny_run) if name.startswith("text_encoder.transformer")]
    assert (tiny_run / "text" / "tokenizer.json").exists()
    assert not (tiny_run / "texts.safetensors").exists()


def test_a_fine_tuned_pretrained_tower_comes_back(
    quick: Config, tower: Path, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    config = _changed(quick, text=TextConfig(name=str(tower), trainable=True))
    trained = train(config, tmp_path / "run").embed_text(["low", "thunder"])
    loaded = clapkit.load(tmp_path / "run", device="cpu").embed_text(["low", "thunder"])
    np.testing.assert_allclose(loaded, trained, atol=1e-6)


def test_a_new_tower_cannot_be_frozen(quick: Config, train: Callable[..., AudioTextModel], tmp_path: Path) -> None:
    text = quick.text.model_copy(update={"trainable": False})
    with pytest.raises(ClapkitError, match="trainable"):
        train(_changed(quick, text=text), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_one_clip_is_too_few(quick: Config, manifest: Manifest, tmp_path: Path) -> None:
    run = plan_run(quick, manifest, tmp_path / "run")
    alone = replace(run, split=replace(run.split, train=run.split.train.iloc[:1]))
    with pytest.raises(DatasetError, match="at least two"):
        train_and_test(alone, device=CPU)


@pytest.mark.parametrize("watched", [{"patience": 2}, {"schedule": "plateau"}])
def test_watched_clips_are_never_those_of_the_test(
    quick: Config, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: dict[str, object]
) -> None:
    seen: dict[str, set[int]] = {"training_batch": set(), "validation_batch": set()}

    def watch(place: str, name: str) -> None:
        module = pytest.importorskip(place)
        make = getattr(module, name)

        def spy(data: TrainingData, clips: torch.Tensor, *rest: object) -> object:
            seen[name].update(data.rows[clips].tolist())
            return make(data, clips, *rest)

        monkeypatch.setattr(module, name, spy)

    watch("clapkit.training.loop", "training_batch")
    watch("clapkit.training.objective", "validation_batch")
    run = plan_run(_changed(quick, epochs=4, **watched), manifest, tmp_path / "run")
    train_and_test(run, device=CPU)
    split = run.split
    assert seen["validation_batch"] == set(split.validation.index)
    assert seen["training_batch"] <= set(split.train.index)
    assert not set(split.test.index) & (seen["validation_batch"] | seen["training_batch"])
    sources = [set(part["source"]) for part in (split.train, split.validation, split.test)]
    assert sum(map(len, sources)) == len(set.union(*sources))
    assert all(sources)


def test_the_test_clips_have_no_say_in_training(quick: Config, manifest: Manifest, tmp_path: Path) -> None:
    """Without them every bit of the model is the same."""
    run = plan_run(_changed(quick, epochs=3, patience=1, ema=0.5), manifest, tmp_path / "with")
    blind = replace(run, split=replace(run.split, test=run.split.test.iloc[:0]), output=tmp_path / "without")
    tested, untested = train_and_test(run, device=CPU), train_and_test(blind, device=CPU)
    assert _identical(tmp_path / "with", tmp_path / "without")
    assert tested.checkpoint.metrics
    assert not untested.checkpoint.metrics


def test_a_random_split_can_be_watched_too(quick: Config, manifest: Manifest, tmp_path: Path) -> None:
    """Its clips are drawn anyhow, and its result is marked."""
    config = _changed(quick, patience=1)
    try:
        model = train_and_test(plan_run(config, manifest, tmp_path / "run", kind="random"), device=CPU)
    except ClapkitError:  # to say why not is as good
        return
    assert model.checkpoint.training["leaky"]


@pytest.mark.parametrize(
    "weights",
    [{"contrastive_weight": 0.0, "head_weight": 0.0}, {"contrastive_weight": 0.0, "head": False}],
)
def test_nothing_to_minimise_is_one_readable_line(
    quick: Config, manifest: Manifest, tmp_path: Path, weights: dict[str, object]
) -> None:
    has_head = bool(weights.pop("head", True))
    config = _changed(quick, **weights)
    config = config.model_copy(update={"model": config.model.model_copy(update={"head": has_head})})
    with pytest.raises(ClapkitError):
        train_and_test(plan_run(config, manifest, tmp_path / "run"), device=CPU)


@pytest.mark.parametrize("losses", [{"contrastive_weight": 0.0}, {"head_weight": 0.0}, {"contrastive": "sigmoid"}])
def test_each_loss_alone_trains_and_is_scored_by_what_was_trained(
    quick: Config, manifest: Manifest, tmp_path: Path, losses: dict[str, object]
) -> None:
    model = train_and_test(plan_run(_changed(quick, **losses), manifest, tmp_path / "run"), device=CPU)
    tasks = {"head", "zeroshot", "retrieval"}
    tasks -= {"zeroshot", "retrieval"} if losses == {"contrastive_weight": 0.0} else set()
    tasks -= {"head"} if losses == {"head_weight": 0.0} else set()
    assert set(model.checkpoint.metrics) == tasks
    assert clapkit.load(tmp_path / "run", device="cpu").checkpoint.metrics == model.checkpoint.metrics


@pytest.mark.usefixtures("pictures")
def test_the_run_folder_tells_the_whole_story(quick: Config, manifest: Manifest, tmp_path: Path) -> None:
    run = plan_run(_changed(quick, epochs=2, patience=5), manifest, tmp_path / "run", command="clapkit train ...")
    lines: list[str] = []
    train_and_test(run, device=CPU, report=lines.append)
    names = {file.name for file in run.output.iterdir()}
    assert names >= {
        RUN_FILE, REPORT_FILE, HISTORY_FILE, PREDICTIONS_FILE, CURVES_FILE, CONFUSION_FILE, CLASSES_FILE, SAMPLES_FILE,
        SPLIT_FILE, "metrics.json", "config.yaml", "model.safetensors", "checkpoint.yaml",
    }  # fmt: skip
    for picture in (CURVES_FILE, CONFUSION_FILE, CLASSES_FILE, SAMPLES_FILE):
        assert (run.output / picture).read_bytes()[:4] == b"\x89PNG"
    record = json.loads((run.output / RUN_FILE).read_text())
    split = run.split
    assert record["command"] == "clapkit train ..."
    assert record["split"] == split.note
    assert record["seed"] == 0
    assert record["leaky"] is False
    assert record["leakage"] in lines
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    assert record["n_clips"] == {name: len(rows) for name, rows in parts.items()}
    assert torch.__version__.startswith(record["versions"]["torch"])
    assert record["differences"]["train.patience"] == 5
    assert record["config"]["train"]["epochs"] == 2
    cut = pd.read_csv(run.output / SPLIT_FILE)
    for name, rows in parts.items():
        assert sorted(cut.loc[cut["part"] == name, "path"]) == sorted(rows["path"])
        assert sorted(cut.loc[cut["part"] == name, "source"].map(str)) == sorted(rows["source"].map(str))
    history = pd.read_csv(run.output / HISTORY_FILE)
    assert history["epoch"].tolist() == [1, 2]
    assert {"loss", "val_loss", "learning_rate", "seconds"} <= set(history)
    assert len(pd.read_csv(run.output / PREDICTIONS_FILE)) == len(split.test)
    assert list(tmp_path.iterdir()) == [run.output]


def test_held_out_classes_are_neither_heard_nor_read(
    quick: Config, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    draw = TrainingTexts.__init__

    def watch(self: TrainingTexts, *arguments: object) -> None:
        draw(self, *arguments)
        read.update(self.texts)

    monkeypatch.setattr(TrainingTexts, "__init__", watch)
    run = plan_run(_changed(quick, patience=3), manifest, tmp_path / "run", hold_out="high")
    model = train_and_test(run, device=CPU)
    assert read
    assert not [text for text in read if "high" in text]
    assert "high" not in set(run.split.train["label"]) | set(run.split.validation["label"])
    assert "generalised" in model.checkpoint.metrics["zeroshot"]


@pytest.fixture
def captions(sounds: Path, tmp_path: Path) -> Manifest:
    """A CSV of captions without labels."""
    files = sorted(sounds.rglob("*.wav"))
    texts = [f"tone number {number} in the {file.parent.name} range" for number, file in enumerate(files)]
    pd.DataFrame({"path": files, "caption": texts}).to_csv(tmp_path / "captions.csv", index=False)
    return load_manifest("csv", tmp_path / "captions.csv")


def test_captions_alone_can_be_trained_on(quick: Config, captions: Manifest, sounds: Path, tmp_path: Path) -> None:
    train_and_test(plan_run(quick, captions, tmp_path / "run"), device=CPU)
    model = clapkit.load(tmp_path / "run", device="cpu")
    assert (model.labels, model.clap.head, model.checkpoint.metrics) == ([], None, {})
    scores = model.zeroshot(sounds / "low" / "0.wav", ["a low tone", "a high tone"])
    assert sum(score.score for score in scores) == pytest.approx(1, abs=1e-5)


def test_a_model_of_captions_says_that_it_has_no_head(
    quick: Config, captions: Manifest, sounds: Path, tmp_path: Path
) -> None:
    model = train_and_test(plan_run(quick, captions, tmp_path / "run"), device=CPU)
    with pytest.raises(ClapkitError, match="no linear head"):
        model.classify(sounds / "low" / "0.wav")


def test_a_model_without_head_can_be_trained_and_scored(
    quick: Config, train: Callable[..., AudioTextModel], sounds: Path, tmp_path: Path
) -> None:
    config = quick.model_copy(update={"model": quick.model.model_copy(update={"head": False})})
    train(config, tmp_path / "run")
    model = clapkit.load(tmp_path / "run", device="cpu")
    assert set(model.checkpoint.metrics) == {"zeroshot", "retrieval"}
    with pytest.raises(ClapkitError, match="no linear head"):
        model.classify(sounds / "low" / "0.wav")


def test_training_tells_three_tones_apart(
    tiny_config: Config, manifest: Manifest, train: Callable[..., AudioTextModel], tmp_path: Path
) -> None:
    calm = _changed(tiny_config, epochs=30, batch_size=5)
    calm = calm.model_copy(update={"augment": calm.augment.model_copy(update={"mixup": 0.0})})
    model = train(calm, tmp_path / "run")
    results = evaluate(model, "folder", manifest.table, list(manifest.labels), ["head", "zeroshot"]).figures
    assert results["head"]["accuracy"] > 0.9
    assert results["zeroshot"]["accuracy"] > 0.5  # chance is 1/3
