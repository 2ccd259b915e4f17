"""A training so small that dozens of them take a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from clapkit.config import Config, load_config
from clapkit.data.log_mels import LogMelStore
from clapkit.data.manifest import make_table
from clapkit.data.packs import Pack
from clapkit.models.clap import CLAP
from clapkit.models.text_towers import new_text_encoder
from clapkit.training.batches import TrainingData
from clapkit.training.build import freeze_unused
from clapkit.training.loop import Outcome, fit
from clapkit.training.processes import make_accelerator
from clapkit.training.texts import TrainingTexts

CPU = torch.device("cpu")
LABELS = ("dog", "rain", "siren")
TEXT_DIM = 12
SMALLEST = [
    "audio.sample_rate=4000", "audio.n_fft=256", "audio.hop_length=100", "audio.window_s=0.5", "audio.n_mels=8",
    "encoder.width=4", "model.embed_dim=8", "text.name=bert-small", "text.hidden_size=8", "text.n_layers=1",
    "train.batch_size=4", "train.epochs=3",
]  # fmt: skip


@dataclass
class SmallTraining:
    """What ``fit`` needs, made anew for each training."""

    folder: Path
    store: LogMelStore
    validation_store: LogMelStore

    def config(self, *overrides: str) -> Config:
        return load_config([], [*SMALLEST, *overrides])

    def data(self, store: LogMelStore, config: Config) -> TrainingData:
        labels = [LABELS[number % 3] for number in range(len(store))]
        texts = TrainingTexts(make_table(path=list(map(str, range(len(store)))), label=labels))
        vectors = None
        if config.text.trainable is False:
            generator = torch.Generator().manual_seed(len(texts.texts))
            vectors = torch.randn(len(texts.texts), TEXT_DIM, generator=generator)
        targets = torch.eye(3)[[number % 3 for number in range(len(store))]]
        return TrainingData(store, torch.arange(len(store)), torch.ones(len(store)), texts, vectors, targets)

    def clap(self, config: Config) -> CLAP:
        torch.manual_seed(config.train.seed)
        if config.text.trainable is False:
            clap = CLAP(config, 3, TEXT_DIM)
        else:
            tower = new_text_encoder(config.text, [f"the sound of {label}" for label in LABELS])
            clap = CLAP(config, 3, tower.text_dim, tower)
        freeze_unused(clap)
        return clap

    def fit(
        self, config: Config, folder: str = "state", run: str = "run", report: Callable[[str], None] = lambda line: None
    ) -> Outcome:
        validation = self.data(self.validation_store, config) if config.train.watches_validation else None
        accelerator = make_accelerator(CPU, torch.float32)
        clap, data = self.clap(config), self.data(self.store, config)
        return fit(clap, data, validation, accelerator, self.folder / folder, run, report)


def _store(file: Path, lengths: list[int], n_mels: int = 8) -> LogMelStore:
    """Pictures of bands that tell the three labels apart, in noise."""
    generator = np.random.default_rng(len(lengths))
    rows = []
    for clip, length in enumerate(lengths):
        picture = generator.normal(-1, 0.5, (length, n_mels))
        picture[:, 2 * (clip % 3) : 2 * (clip % 3) + 2] += 1.5
        rows.append(picture)
    np.concatenate(rows).astype(np.float16).tofile(file)
    sizes = np.array(lengths) * n_mels
    return LogMelStore(Pack(file, np.cumsum(sizes) - sizes, sizes), 1, n_mels)


@pytest.fixture
def small(tmp_path: Path) -> SmallTraining:
    """Thirteen clips to train on and seven to watch, some longer and some shorter than a window of 21 frames."""
    train = _store(tmp_path / "train.bin", [21, 15, 40, 21, 9, 30, 21, 21, 33, 12, 21, 25, 21])
    return SmallTraining(tmp_path, train, _store(tmp_path / "validation.bin", [21, 15, 40, 21, 9, 30, 21]))
