"""What a run folder says about how it was made: settings, split, seed, versions, and pictures of what training saw."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from clapkit.audio.augment import augmentation_steps, draw_augmentation
from clapkit.audio.windows import n_window_frames
from clapkit.config import Config
from clapkit.data.splits import Split
from clapkit.device import describe_device
from clapkit.errors import TrainingError
from clapkit.training.batches import TrainingData, seeded_generator
from clapkit.version import __version__

SPLIT_FILE = "split.csv"
LIBRARIES = ("torch", "torchaudio", "transformers", "accelerate", "numpy", "scikit-learn")
N_PICTURED = 3


def run_record(
    config: Config, dataset: str, split: Split, leakage: str, command: str, device: torch.device, seconds: float,
    n_epochs: int,
) -> dict[str, Any]:  # fmt: skip
    """Everything that another person needs to repeat and to judge a run."""
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {
        "command": command,
        "dataset": dataset,
        "split": split.note,
        "leakage": leakage,
        "leaky": split.leaky,
        "n_clips": {name: len(rows) for name, rows in parts.items()},
        "n_recordings": {name: int(rows["source"].nunique()) for name, rows in parts.items()},
        "seed": config.train.seed,
        "n_epochs": n_epochs,
        "seconds": round(seconds, 1),
        "device": describe_device(device),
        "versions": versions(),
        "differences": dict(differences(config)),
        "config": config.model_dump(mode="json"),
    }


def versions() -> dict[str, str]:
    """Of clapkit, Python and the libraries that numbers depend on."""
    own = {"clapkit": __version__, "python": platform.python_version()}
    return own | {library: version(library) for library in LIBRARIES}


def differences(config: Config) -> Iterator[tuple[str, Any]]:
    """Settings that are not the defaults, as ``section.key`` and value."""
    chosen, usual = config.model_dump(mode="json"), Config().model_dump(mode="json")
    for section, settings in chosen.items():
        for key, value in settings.items():
            if section != "experiment" and value != usual[section][key]:
                yield f"{section}.{key}", value


def write_split(split: Split, folder: Path) -> None:
    """``split.csv``: which clip was used for what, with its recording."""
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    tables = [rows.assign(part=part) for part, rows in parts.items()]
    columns = ["part", "path", "start_s", "end_s", "label", "tags", "caption", "fold", "source", "weight"]
    pd.concat(tables)[columns].dropna(axis=1, how="all").to_csv(folder / SPLIT_FILE, index=False)


def augmentation_samples(data: TrainingData, titles: list[str], config: Config) -> list[tuple[str, list]]:
    """Some clips of a batch before and after each step of augmentation.

    Args:
        data: clips that are trained on.
        titles: of every clip.
        config: which steps are on.

    Returns:
        For each clip a title and ``(step, (n_mels, n_valid_frames) dB)`` pairs; of stereo the left channel.
    """
    n_clips = min(config.train.batch_size, len(data))
    generator = seeded_generator(config.train.seed, "pictures", 0)
    clips = torch.randperm(len(data), generator=generator)[:n_clips]
    pictures = _cpu(data.log_mels.gather(data.rows[clips], torch.zeros_like(clips), n_window_frames(config.audio)))
    draws = draw_augmentation(n_clips, config.augment, generator, data.backgrounds and len(data.backgrounds))
    backgrounds = None
    if data.backgrounds is not None:
        starts = torch.zeros_like(draws.behind)
        backgrounds = _cpu(data.backgrounds.gather(draws.behind, starts, n_window_frames(config.audio)))
    steps = list(augmentation_steps(*pictures, draws, config.audio, config.augment, backgrounds))
    audio = config.audio
    samples = []
    for place in draws.share.argsort()[:N_PICTURED].tolist():  # those that mixup changes most
        shown = []
        for name, log_mel, n_valid_frames in steps:
            picture = log_mel[place, 0, :, : n_valid_frames[place]] * audio.std_db + audio.mean_db
            note = f" {draws.share[place]:.0%}" if name == "mixup" and draws.share[place] < 1 else ""
            shown.append((name + note, picture.numpy()))
        samples.append((titles[clips[place]], shown))
    return samples


def write_events(folder: Path, row: dict[str, float]) -> None:
    """An epoch's figures for TensorBoard.

    Raises:
        TrainingError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError("train.tensorboard=true needs TensorBoard; run: pip install tensorboard") from None
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(row["epoch"]))


def _cpu(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0].cpu(), pair[1].cpu()
