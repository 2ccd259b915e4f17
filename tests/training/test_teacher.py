"""A teacher's beliefs replace a part of the labels; a teacher that does not fit, or heard the test, is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from clapkit.config import Config, load_config
from clapkit.data.datasets import load_manifest
from clapkit.data.log_mels import LogMelStore
from clapkit.data.manifest import make_table
from clapkit.data.packs import Pack
from clapkit.errors import ConfigError, DatasetError
from clapkit.model import AudioTextModel
from clapkit.models.checkpoint import load_checkpoint
from clapkit.training.batches import Batch, TrainingData, seeded_generator, training_batch
from clapkit.training.plan import plan_run
from clapkit.training.run import train_and_test
from clapkit.training.teacher import Teacher, open_teacher
from clapkit.training.texts import TrainingTexts
from tests.conftest import TINY

CPU = torch.device("cpu")
SIZES = [
    "audio.sample_rate=1000", "audio.n_fft=256", "audio.hop_length=100", "audio.window_s=1.0", "audio.n_mels=8",
    "augment.mixup=0",
]  # fmt: skip
BELIEFS = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])


class _Believer(Teacher):
    """Believes the same of every first and of every second clip, and notes what it hears."""

    def believe(self, log_mel: torch.Tensor, n_valid_frames: torch.Tensor) -> torch.Tensor:
        self.heard = log_mel
        return BELIEFS


def data_of(folder: Path, label_of_topic: list[int], **columns: list) -> TrainingData:
    """Two clips without texts of several labels."""
    values = np.arange(2 * 11 * 8, dtype=np.float16)
    values.tofile(folder / "values.bin")
    sizes = np.array([88, 88])
    store = LogMelStore(Pack(folder / "values.bin", np.cumsum(sizes) - sizes, sizes), 1, 8)
    texts = TrainingTexts(make_table(path=["0", "1"], **columns))
    teacher = _Believer(SimpleNamespace(), torch.tensor(label_of_topic), [], {})
    targets = torch.eye(3)[:2]
    return TrainingData(
        store, torch.arange(2), torch.ones(2), texts, torch.eye(len(texts.texts)), targets, teacher=teacher
    )


def batch_of(data: TrainingData, *overrides: str, own: slice = slice(None)) -> Batch:
    config = load_config([], [*SIZES, *overrides])
    return training_batch(data, torch.arange(2), config, seeded_generator(0, "batch", 0), own, CPU)


def test_labels_and_texts_are_partly_what_the_teacher_believes(tmp_path: Path) -> None:
    data = data_of(tmp_path, [0, 1], label=["dog", "rain"])
    batch = batch_of(data, "train.teacher_part=0.5")
    torch.testing.assert_close(batch.targets, torch.tensor([[0.8, 0.15, 0.05], [0.1, 0.6, 0.3]]))
    torch.testing.assert_close(batch.same, torch.tensor([[0.8, 0.15], [0.1, 0.6]]))
    assert torch.equal(batch_of(data, "train.teacher_part=0").targets, torch.eye(3)[:2])
    assert torch.equal(batch_of(data, "train.teacher_part=1").targets, BELIEFS)


def test_it_is_asked_about_the_texts_of_every_label_too(tmp_path: Path) -> None:
    data = data_of(tmp_path, [0, 1], label=["dog", "rain"])
    batch = batch_of(data, "train.teacher_part=1", "train.all_labels=true")
    assert batch.same.shape == (2, 4)
    torch.testing.assert_close(batch.same, BELIEFS[:, :2].repeat(1, 2))


def test_captions_stay_what_they_are(tmp_path: Path) -> None:
    data = data_of(tmp_path, [-1, -1], caption=["a dog", "rain"])
    assert torch.equal(batch_of(data, "train.teacher_part=1").same, torch.eye(2))


def test_it_hears_what_the_learner_hears_in_every_process(tmp_path: Path) -> None:
    data = data_of(tmp_path, [0, 1], label=["dog", "rain"])
    whole = batch_of(data)
    assert torch.equal(data.teacher.heard, whole.log_mel)
    part = batch_of(data, own=slice(1, 2))
    assert len(part.log_mel) == 1
    assert torch.equal(data.teacher.heard, whole.log_mel)
    assert torch.equal(part.targets, whole.targets)


def quick(teacher: Path, *changes: str) -> Config:
    return load_config([], [*TINY, f"train.teacher={teacher}", *changes])


def train(sounds: Path, output: Path, *changes: str) -> AudioTextModel:
    config = load_config([], [*TINY, *changes])
    return train_and_test(plan_run(config, load_manifest("folder", sounds), output), device=CPU)


def test_a_model_learns_from_a_teacher_of_the_same_split(sounds: Path, tmp_path: Path) -> None:
    train(sounds, tmp_path / "first")
    taught = train(sounds, tmp_path / "taught", f"train.teacher={tmp_path / 'first'}", "train.teacher_part=1")
    alone = train(sounds, tmp_path / "alone")
    assert not torch.equal(taught.clap.head.weight, alone.clap.head.weight)
    assert set(taught.checkpoint.sources) == set(load_checkpoint(tmp_path / "first").sources)


def test_a_teacher_that_heard_the_test_is_refused(sounds: Path, tmp_path: Path) -> None:
    train(sounds, tmp_path / "first", "train.seed=1")  # another split
    with pytest.raises(DatasetError, match=r"has heard .* recordings of the test"):
        train(sounds, tmp_path / "taught", f"train.teacher={tmp_path / 'first'}")
    assert not (tmp_path / "taught").exists()


def test_a_teacher_that_learned_a_held_out_class_is_refused(sounds: Path, tmp_path: Path) -> None:
    manifest, config = load_manifest("folder", sounds), load_config([], TINY)
    train(sounds, tmp_path / "knows")
    held_out = plan_run(config, manifest, tmp_path / "unaware", hold_out="high")
    train_and_test(held_out, device=CPU)
    changed = load_config([], [*TINY, f"train.teacher={tmp_path / 'knows'}"])
    state = tmp_path / "taught.training"
    state.mkdir()
    with pytest.raises(DatasetError, match="has learned 1 of the classes that are held out, such as high"):
        train_and_test(plan_run(changed, manifest, tmp_path / "taught", hold_out="high"), device=CPU, overwrite=True)
    assert state.exists()  # nothing is thrown away for a teacher who cannot teach
    changed = load_config([], [*TINY, f"train.teacher={tmp_path / 'unaware'}"])
    train_and_test(plan_run(changed, manifest, tmp_path / "good", hold_out="high"), device=CPU)


def test_facts_about_the_teacher_hold_for_its_pupil(sounds: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "first"
    train(sounds, teacher)
    record = yaml.safe_load((teacher / "checkpoint.yaml").read_text())
    record["training"] |= {"licence": "CC BY-NC 4.0", "saw_esc50": True, "title": "First"}
    (teacher / "checkpoint.yaml").write_text(yaml.safe_dump(record))
    training = train(sounds, tmp_path / "taught", f"train.teacher={teacher}").checkpoint.training
    assert (training["licence"], training["saw_esc50"]) == ("CC BY-NC 4.0", True)
    assert training["taught_by"] == str(teacher)
    assert "title" not in training


@pytest.mark.parametrize(
    ("labels", "changes", "words"),
    [
        (("high", "low"), (), "labels"),
        (("low", "high", "middle"), (), "another order"),
        (("high", "low", "middle"), ("audio.n_mels=40",), "'audio'"),
        (("high", "low", "middle"), ("model.multilabel=true",), "one label"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    tiny_run: Path, labels: tuple[str, ...], changes: tuple[str, ...], words: str
) -> None:
    texts = TrainingTexts(make_table(path=["0"], label=["high"]))
    with pytest.raises(ConfigError, match=words) as caught:
        open_teacher(quick(tiny_run, *changes), labels, texts, CPU)
    assert "\n" not in str(caught.value)


def test_its_beliefs_are_those_of_its_head(tiny_run: Path) -> None:
    texts = TrainingTexts(make_table(path=["0", "1"], label=["low", "high"]))
    teacher = open_teacher(quick(tiny_run), ("high", "low", "middle"), texts, CPU)
    assert teacher.label_of_topic.tolist() == [1, 0]
    audio = teacher.clap.config.audio
    log_mel = torch.randn(2, 1, audio.n_mels, 51)
    believed = teacher.believe(log_mel, torch.tensor([51, 20]))
    torch.testing.assert_close(believed.sum(dim=1), torch.ones(2))
    features = teacher.clap.audio_encoder(log_mel, torch.tensor([51, 20]))
    torch.testing.assert_close(believed, teacher.clap.head(features).softmax(dim=1))
    assert not any(each.requires_grad for each in teacher.clap.parameters())
