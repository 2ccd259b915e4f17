"""A caption model for a checkpoint whose towers stay as they are: from captioned sounds to a tested run folder."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from clapkit.config import Config
from clapkit.data.packs import digest_of
from clapkit.data.splits import Split, check_leakage
from clapkit.device import choose_dtype
from clapkit.errors import DatasetError, TrainingError
from clapkit.evaluation.report import write_run_report
from clapkit.evaluation.run_folder import REPORT_FILE, RUN_FILE
from clapkit.model import DEFAULT_CHECKPOINT, AudioTextModel
from clapkit.models.caption import Captioner
from clapkit.models.caption_decoder import new_captioner
from clapkit.models.checkpoint import RECORD_FILE, write_checkpoint
from clapkit.storage import replacing_folder
from clapkit.training.audio_vectors import audio_vectors
from clapkit.training.build import drawing_weights, settings_of_start
from clapkit.training.caption_fit import CaptionFit, CaptionPairs, loss_per_token, with_part
from clapkit.training.loop import Outcome
from clapkit.training.processes import make_accelerator
from clapkit.training.record import run_record, write_split
from clapkit.training.run import Run, run_id
from clapkit.training.unfinished import begin, refuse_to_lose, state_folder

N_SAMPLES = 8
"""Unseen sounds whose captions the report shows."""


def train_captions(
    run: Run, *, device: torch.device, overwrite: bool = False, resume: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> AudioTextModel:  # fmt: skip
    """Train what writes captions on one part of a dataset, test it on the other, and save the run folder.

    Args:
        run: ``config.train.start_from`` names the checkpoint that hears, ``config.caption`` what is put behind it; only
            rows with a caption count.
        device: where to train.
        overwrite: replace an existing run, and start anew.
        resume: go on where a killed run was saved last.
        report: told one line for each step.

    Returns:
        The checkpoint with its caption model; its figures are in ``checkpoint.metrics["caption"]``.

    Raises:
        StorageError: the output exists already, or the disk is full.
        CheckpointError: the checkpoint cannot be read, or the state to resume belongs to another run.
        TextModelError: the decoder, or its tokenizer, is not on this machine.
        DatasetError: no captions to train on, or recordings on both sides of the split.
        TrainingError: several processes, or the loss is no longer a number.
    """
    refuse_to_lose(run.output, overwrite=overwrite, resume=resume)
    run = replace(run, split=_captioned(run, report), config=_with_start(run.config))
    leakage = check_leakage(run.split)
    config, start = settings_of_start(run.config)
    accelerator = make_accelerator(device, choose_dtype(device, config.train.precision))
    if accelerator.num_processes > 1:
        raise TrainingError("captions are learned in one process; start clapkit train without torchrun.")
    begin(run.output, accelerator, overwrite=overwrite, resume=resume, report=report)
    report(leakage)

    torch.manual_seed(config.train.seed)  # initial weights
    model = AudioTextModel(start, accelerator.device, str(run.output))
    identity = digest_of(run_id(run), model.fingerprint)[:16]
    captioner = _captioner(config, model, run.split).to(accelerator.device)
    report(_describe(captioner, config))
    parts = _pairs(captioner, model, run.split, config)
    outcome = CaptionFit(
        captioner, config, parts["train"], parts.get("validation"), accelerator, state_folder(run.output), identity,
        report,
    ).run()  # fmt: skip
    learned = accelerator.unwrap_model(outcome.network, keep_fp32_wrapper=False)
    captioner = with_part(captioner, learned).eval()
    figures = {"caption": _figures(captioner, model, run, parts["test"])} if "test" in parts else {}
    model.checkpoint = replace(
        start, captioner=captioner, training=start.training | _facts(run, config, captioner),
        metrics=start.metrics | figures,
    )  # fmt: skip
    record = {"id": identity} | run_record(
        config, run.manifest.dataset, run.split, leakage, run.command, accelerator.device, outcome.seconds,
        len(outcome.history),
    )  # fmt: skip
    _save(model, run, record, outcome, figures, _samples(model, run.split.test, parts), overwrite or resume)
    report(f"done in {outcome.seconds:.0f} s")
    return model


def _with_start(config: Config) -> Config:
    start_from = config.train.start_from or DEFAULT_CHECKPOINT
    return config.model_copy(update={"train": config.train.model_copy(update={"start_from": start_from})})


def _parts(split: Split) -> dict[str, pd.DataFrame]:
    return {"train": split.train, "validation": split.validation, "test": split.test}


def _captioned(run: Run, report: Callable[[str], None]) -> Split:
    """The split without clips that have no caption."""
    parts = _parts(run.split)
    kept = {name: rows[rows["caption"].notna()] for name, rows in parts.items()}
    watches = run.config.train.watches_validation
    if empty := [name for name in ("train", *(["validation"] if watches else [])) if kept[name].empty]:
        raise DatasetError(
            f"no clip of the {empty[0]} part has a caption; give a CSV with the columns path and caption, a sentence "
            "for each sound."
        )
    if n_without := sum(len(rows) - len(kept[name]) for name, rows in parts.items()):
        report(f"{n_without} clips without a caption are left out")
    return replace(run.split, **kept)


def _captioner(config: Config, model: AudioTextModel, split: Split) -> Captioner:
    """The checkpoint's own captioner, unless the config names a decoder; else a new one."""
    own = model.checkpoint.captioner
    if own is not None and config.caption.decoder is None:
        return own
    return new_captioner(config.caption, model.embed_dim, split.train["caption"].tolist())


def _describe(captioner: Captioner, config: Config) -> str:
    sizes = captioner.mapper.sizes
    manner = "learns too" if captioner.decoder_learns else "frozen"
    return (
        f"mapper of {sizes['n_layers']} layers to {sizes['prefix_length']} vectors; "
        f"decoder {config.caption.decoder or 'GPT-2'}, {manner}; audio tower frozen"
    )


def _pairs(captioner: Captioner, model: AudioTextModel, split: Split, config: Config) -> dict[str, CaptionPairs]:
    """The pairs of each part of the split that has some; a missing tokenizer is found before sounds are decoded."""
    parts = {name: rows for name, rows in _parts(split).items() if len(rows)}
    tokens = {name: captioner.tokenize(rows["caption"].tolist()) for name, rows in parts.items()}
    vectors = audio_vectors(model, pd.concat(parts.values())).split([len(rows) for rows in parts.values()])
    return {
        name: CaptionPairs(own, *tokens[name], drawing_weights(rows, config.train.balance))
        for (name, rows), own in zip(parts.items(), vectors, strict=True)
    }


def _figures(captioner: Captioner, model: AudioTextModel, run: Run, test: CaptionPairs) -> dict[str, Any]:
    loss = loss_per_token(captioner, test, model.device, run.config.train.batch_size)
    n_heard = int(run.split.test["source"].isin(model.checkpoint.sources).sum())
    return {
        "dataset": run.manifest.dataset, "task": "caption", "n_clips": len(test), "n_seen_in_training": n_heard,
        "leaky": run.split.leaky or n_heard > 0, "loss_per_token": loss, "perplexity": math.exp(loss),
    }  # fmt: skip


def _facts(run: Run, config: Config, captioner: Captioner) -> dict[str, Any]:
    """What the checkpoint says of its captions, beside what it says of its towers."""
    return {
        "captions_of": run.manifest.dataset,
        "captions_split": run.split.note,
        "captions_leaky": run.split.leaky,
        "captions_pairs": len(run.split.train),
        "captions_epochs": config.train.epochs,
        "captions_decoder": f"{config.caption.decoder or 'gpt2'}{'' if captioner.decoder_learns else ', frozen'}",
    }


def _samples(model: AudioTextModel, rows: pd.DataFrame, parts: dict[str, CaptionPairs]) -> pd.DataFrame:
    """What is written about some unseen recordings, from all over the table: ``caption`` as given, and ``written``."""
    places = np.flatnonzero(~rows["source"].duplicated())
    chosen = places[np.linspace(0, len(places), min(N_SAMPLES, len(places)), endpoint=False, dtype=int)]
    written = model.write_captions(list(parts["test"].vectors[chosen].numpy())) if len(chosen) else []
    return rows.iloc[chosen][["path", "start_s", "end_s", "source", "caption"]].assign(written=written)


def _save(
    model: AudioTextModel, run: Run, record: dict[str, Any], outcome: Outcome, figures: dict[str, Any],
    samples: pd.DataFrame, overwrite: bool,
) -> None:  # fmt: skip
    """Write the run folder in one step."""
    unfinished = state_folder(run.output)
    with replacing_folder(run.output, RECORD_FILE, overwrite=overwrite) as folder:
        write_checkpoint(model.checkpoint, folder)
        (folder / RUN_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_split(run.split, folder)
        write_run_report(folder, record, outcome.history, figures, samples)
        if len(samples):
            page = ["", "## Unseen sounds", ""]
            page += [
                f"- {Path(path).name}: **{written}** (given: {caption})"
                for path, written, caption in samples[["path", "written", "caption"]].itertuples(index=False)
            ]
            with (folder / REPORT_FILE).open("a", encoding="utf-8") as stream:
                stream.write("\n".join(page) + "\n")
        if (unfinished / "tensorboard").exists():
            shutil.copytree(unfinished / "tensorboard", folder / "tensorboard")
    shutil.rmtree(unfinished, ignore_errors=True)
