"""One training step, as clapkit's loop takes it, so that it can be timed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pandas as pd
import torch

from clapkit.audio.windows import n_window_frames
from clapkit.config import Config, load_config
from clapkit.data.cache import open_waveforms
from clapkit.data.log_mels import open_log_mels
from clapkit.device import choose_dtype
from clapkit.training.batches import TrainingData, seeded_generator, training_batch
from clapkit.training.build import build_network, freeze_unused, make_data
from clapkit.training.objective import batch_losses, total_loss
from clapkit.training.optimizers import make_optimizer
from clapkit.training.processes import make_accelerator, own_slice, with_global_statistics
from clapkit.training.texts import TrainingTexts

BATCH_SIZE = 32


class RandomPictures:
    """Stands in for a store: the same random pictures, already on the device, for any clips."""

    def __init__(self, config: Config, n_clips: int, device: torch.device) -> None:
        audio = config.audio
        shape = (BATCH_SIZE, audio.n_channels, audio.n_mels, n_window_frames(audio))
        self.pictures = torch.randn(shape, device=device)
        self.n_valid_frames = torch.full((BATCH_SIZE,), shape[-1], device=device)
        self.n_frames = torch.full((n_clips,), shape[-1])

    def gather(self, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        """The same batch each time."""
        return self.pictures, self.n_valid_frames


class Trainer:
    """Everything that one training step needs."""

    def __init__(self, config: Config, table: pd.DataFrame, device: torch.device) -> None:
        self.config, self.device = config, device
        self.accelerator = make_accelerator(device, choose_dtype(device, config.train.precision))
        labels = tuple(dict.fromkeys(table["label"]))
        torch.manual_seed(0)
        texts = TrainingTexts(table)
        network = build_network(config, labels, texts.texts)
        store = open_log_mels(open_waveforms(table, config.audio), config.audio, device).to_device(device)
        self.data = make_data(table, labels, texts, network, store)
        clap = network.clap.to(device)
        freeze_unused(clap)
        if self.accelerator.num_processes > 1:
            with_global_statistics(clap)
        self.optimizer = make_optimizer(clap, config)
        self.model = self.accelerator.prepare(clap).train()
        self.n_steps = 0

    def step(self, data: TrainingData) -> None:
        """Draw, augment, both towers, backward, clip, update."""
        self.n_steps += 1
        generator = seeded_generator(0, "batch", self.n_steps)
        clips = torch.randperm(len(data), generator=generator)[:BATCH_SIZE]
        own = own_slice(BATCH_SIZE, self.accelerator)
        batch = training_batch(data, clips, self.config, generator, own, self.device)
        self.accelerator.backward(total_loss(batch_losses(self.model, self.config, batch), self.config))
        self.accelerator.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Time of some work, with the device's queue empty before and after."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def settings(encoder: str) -> Config:
    """The defaults with one tower."""
    return load_config([], [f"encoder.name={encoder}", f"train.batch_size={BATCH_SIZE}"])
