"""A whole training run: from a split to a tested checkpoint folder that tells how it came about."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from clapkit.config import Config
from clapkit.data.cache import WaveformStore, open_waveforms
from clapkit.data.log_mels import open_log_mels
from clapkit.data.manifest import Manifest
from clapkit.data.prompts import training_texts
from clapkit.data.splits import Split, check_leakage
from clapkit.device import choose_dtype
from clapkit.errors import ConfigError, DatasetError
from clapkit.evaluation.evaluate import Evaluation, evaluate
from clapkit.evaluation.plots import plot_augmentations
from clapkit.evaluation.report import write_run_report
from clapkit.evaluation.run_folder import RUN_FILE, SAMPLES_FILE
from clapkit.model import AudioTextModel
from clapkit.models.checkpoint import RECORD_FILE, Checkpoint, write_checkpoint
from clapkit.storage import replacing_folder
from clapkit.training.batches import TrainingData
from clapkit.training.build import (
    Network,
    build_network,
    freeze_unused,
    known_vectors,
    make_data,
    make_silence,
    open_backgrounds,
    settings_of_start,
)
from clapkit.training.loop import Outcome, fit
from clapkit.training.processes import make_accelerator
from clapkit.training.record import augmentation_samples, run_record, write_split
from clapkit.training.teacher import Teacher, open_teacher
from clapkit.training.texts import TrainingTexts
from clapkit.training.unfinished import begin, refuse_to_lose, state_folder

KEPT_FACTS = ("published", "title", "licence", "trained_on", "saw_esc50", "saw_us8k")
"""What stays true of a checkpoint that is trained further."""
TAUGHT_FACTS = ("licence", "saw_esc50", "saw_us8k")
"""What is true of a teacher's pupil too."""


@dataclass(frozen=True)
class Run:
    """What to train on what, and where to put it.

    Attributes:
        config: all settings.
        manifest: the dataset; its labels become the head's.
        split: training, validation and test rows.
        output: the run folder, which is also the checkpoint; it appears when everything is done. Until then the
            training's state lies in the sibling ``<output>.training``.
        unseen_labels: classes that no training clip and no training text names.
        texts_of: every training text of a label.
        command: what was typed, for the report.
    """

    config: Config
    manifest: Manifest
    split: Split
    output: Path
    unseen_labels: tuple[str, ...] = ()
    texts_of: Callable[[str], list[str]] = training_texts
    command: str = ""


def train_and_test(
    run: Run, *, device: torch.device, overwrite: bool = False, resume: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> AudioTextModel:  # fmt: skip
    """Train on one part of a dataset, test on the other, and save the run folder.

    Args:
        run: what to do.
        device: where to train.
        overwrite: replace an existing run, and start anew.
        resume: go on where a killed run was saved last.
        report: told one line for each step.

    Returns:
        The trained model; its figures are in ``checkpoint.metrics``.

    Raises:
        StorageError: the output exists already, or the disk is full.
        CheckpointError: the state to resume belongs to another run.
        DatasetError: too few clips, or recordings on both sides of the split.
        TrainingError: the loss is no longer a number.
    """
    split = run.split
    config, start = settings_of_start(_fitted_config(run))
    refuse_to_lose(run.output, overwrite=overwrite, resume=resume)
    leakage = check_leakage(split)
    _check_rows_and_losses(split, config)
    if len(split.train) < 2:
        raise DatasetError(f"{len(split.train)} clip(s) to train on; contrastive training needs at least two.")
    accelerator = make_accelerator(device, choose_dtype(device, config.train.precision))
    report = report if accelerator.is_main_process else lambda line: None
    texts = TrainingTexts(split.train, run.texts_of)
    teacher = open_teacher(config, run.manifest.labels, texts, accelerator.device)
    _check_teacher(teacher, run)
    begin(run.output, accelerator, overwrite=overwrite, resume=resume, report=report)
    report(leakage)

    torch.manual_seed(config.train.seed)  # initial weights
    network = build_network(config, run.manifest.labels, texts.texts, start)
    freeze_unused(network.clap.to(accelerator.device))
    manner = "frozen" if network.tower else "trained"
    report(f"text tower {config.text.name}, {manner}; {len(texts.texts)} training texts")
    waveforms = open_waveforms(run.manifest.table, config.audio)  # the test's clips too: a bad one is found now
    log_mels = open_log_mels(waveforms, config.audio, accelerator.device).to_device(accelerator.device)
    backgrounds = open_backgrounds(config, accelerator.device)
    silence = make_silence(config, accelerator.device)
    train = make_data(split.train, run.manifest.labels, texts, network, log_mels, backgrounds, silence, teacher)
    validation = None
    if config.train.watches_validation:
        val_texts = TrainingTexts(split.validation, run.texts_of)
        validation = make_data(split.validation, run.manifest.labels, val_texts, network, log_mels)
    identity = run_id(run)
    outcome = fit(network.clap, train, validation, accelerator, state_folder(run.output), identity, report)
    network = Network(outcome.network, network.tower, network.text_sha256)
    checkpoint = _checkpoint(run, config, network, accelerator.device, start, teacher)
    model = AudioTextModel(checkpoint, accelerator.device, str(run.output))
    if accelerator.is_main_process:
        record = {"id": identity} | run_record(
            config, run.manifest.dataset, split, leakage, run.command, accelerator.device, outcome.seconds,
            len(outcome.history),
        )  # fmt: skip
        _test_and_save(model, run, record, outcome, waveforms, train, overwrite or resume)
        report(f"done in {outcome.seconds:.0f} s")
    accelerator.wait_for_everyone()
    return model


def run_id(run: Run) -> str:
    """Identifies settings and clips; in which folder they lie does not matter."""
    parts = []
    for rows in (run.split.train, run.split.validation):
        names = [Path(path).name for path in rows["path"]]
        columns = ["start_s", "end_s", "label", "tags", "caption", "weight"]
        parts.append([names, rows[columns].astype(str).values.tolist()])
    settings = _fitted_config(run).model_dump(mode="json", exclude={"experiment": True, "train": {"save_every_s"}})
    content = [settings, parts, run.unseen_labels]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _fitted_config(run: Run) -> Config:
    """The settings with what follows from the data and the place they are used in."""
    config = run.config
    if Path(config.text.name).is_dir():  # the checkpoint may be used from another folder
        text = config.text.model_copy(update={"name": str(Path(config.text.name).resolve())})
        config = config.model_copy(update={"text": text})
    if run.manifest.table["tags"].notna().any():
        config = config.model_copy(update={"model": config.model.model_copy(update={"multilabel": True})})
    return config


def _check_teacher(teacher: Teacher | None, run: Run) -> None:
    """Refuse a teacher who has heard a recording of the test, or has learned a class that is held out."""
    if teacher is None:
        return
    name, split = run.config.train.teacher, run.split
    if learned := set(run.unseen_labels) - set(teacher.training.get("unseen_labels", ())):
        raise DatasetError(
            f"train.teacher={name}: has learned {len(learned)} of the classes that are held out, such as "
            f"{min(learned)}; give a teacher that was trained without them."
        )
    known = set() if split.leaky else set(split.test["source"]) & set(teacher.sources)
    if known:
        raise DatasetError(
            f"train.teacher={name}: has heard {len(known)} recordings of the test, such as "
            f"{min(known)}; give a teacher that was trained on the same split."
        )


def _check_rows_and_losses(split: Split, config: Config) -> None:
    settings = config.train
    if not (settings.contrastive_weight or (settings.head_weight and config.model.head)):
        raise ConfigError(
            "nothing to minimise: train.contrastive_weight and train.head_weight are 0, or model.head is false; "
            "give one of the losses a weight."
        )
    rows = pd.concat([split.train, split.validation])
    has_tags = rows["tags"].map(lambda tags: isinstance(tags, tuple) and len(tags) > 0).astype(bool)
    textless = rows[rows["label"].isna() & rows["caption"].isna() & ~has_tags]
    if len(textless):
        raise DatasetError(
            f"{len(textless)} training clips have neither label, tags nor caption, such as {textless['path'].iloc[0]}; "
            "add a text or remove them."
        )


def _checkpoint(
    run: Run, config: Config, network: Network, device: torch.device, start: Checkpoint | None,
    teacher: Teacher | None,
) -> Checkpoint:  # fmt: skip
    texts = known_vectors(network, run.manifest, run.texts_of)
    training = {
        "dataset": run.manifest.dataset, "split": run.split.note, "leaky": run.split.leaky,
        "n_clips": len(run.split.train), "epochs": config.train.epochs, "device": str(device),
        "unseen_labels": list(run.unseen_labels),
    }  # fmt: skip
    heard = set(pd.concat([run.split.train, run.split.validation])["source"])
    if teacher is not None:
        taught = {key: teacher.training[key] for key in TAUGHT_FACTS if key in teacher.training}
        training |= {"taught_by": config.train.teacher, **taught}
        heard |= set(teacher.sources)
    if start is not None:
        kept = {key: start.training[key] for key in KEPT_FACTS if key in start.training}
        training |= {"started_from": config.train.start_from, **kept}
        heard |= set(start.sources)
    return Checkpoint(network.clap, list(run.manifest.labels), network.text_sha256, texts, training, {}, sorted(heard))


def _test_and_save(
    model: AudioTextModel, run: Run, record: dict[str, Any], outcome: Outcome, waveforms: WaveformStore,
    train: TrainingData, overwrite: bool,
) -> None:  # fmt: skip
    """Score the test rows once, and write the run folder in one step."""
    scores = test_scores(model, run, waveforms)
    model.checkpoint.metrics = scores.figures if scores else {}
    unfinished = state_folder(run.output)
    with replacing_folder(run.output, RECORD_FILE, overwrite=overwrite) as folder:
        write_checkpoint(model.checkpoint, folder)
        (folder / RUN_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_split(run.split, folder)
        titles = [label if isinstance(label, str) else Path(path).name for path, label in
                  zip(run.split.train["path"], run.split.train["label"], strict=True)]  # fmt: skip
        plot_augmentations(augmentation_samples(train, titles, model.config), model.config.audio, folder / SAMPLES_FILE)
        write_run_report(folder, record, outcome.history, model.checkpoint.metrics, scores and scores.predictions)
        if (unfinished / "tensorboard").exists():
            shutil.copytree(unfinished / "tensorboard", folder / "tensorboard")
    shutil.rmtree(unfinished, ignore_errors=True)


def test_scores(model: AudioTextModel, run: Run, waveforms: WaveformStore) -> Evaluation | None:
    """Figures of every task that was trained for, on the rows kept for the test; None for captions without labels."""
    rows = run.split.test
    rows = rows[rows["label"].notna() | rows["tags"].notna()]
    if rows.empty:
        return None
    settings = model.config.train
    by_words = ("zeroshot", "retrieval") if settings.contrastive_weight else ()
    by_head = ("head",) if model.clap.head and settings.head_weight else ()
    return evaluate(
        model, run.manifest.dataset, rows, list(run.manifest.labels), (*by_head, *by_words), waveforms=waveforms,
        unseen_labels=run.unseen_labels,
    )  # fmt: skip
