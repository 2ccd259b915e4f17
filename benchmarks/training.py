"""How near training comes to the device's limit, as ratios measured side by side in one run.

    python benchmarks/training.py [--root DIR_WITH_UrbanSound8K] [--threads 2] [--device cpu|cuda] [--part a|b|c|memory]

Without --root the synthetic set is used. Each figure is the median of interleaved repetitions, so that whatever else
the machine does touches both sides alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from thesis_loader import ThesisClips
from torch.utils.data import DataLoader

from clapkit.config import Config, load_config
from clapkit.data.cache import open_waveforms
from clapkit.data.datasets import load_manifest
from clapkit.data.log_mels import open_log_mels
from clapkit.device import training_dtype
from clapkit.training.batches import TrainingData, n_window_frames, seeded_generator, training_batch
from clapkit.training.build import build_network, freeze_unused, make_data
from clapkit.training.objective import batch_losses, total_loss
from clapkit.training.optimizers import make_optimizer
from clapkit.training.processes import is_main_process, make_accelerator, own_slice, with_global_statistics
from clapkit.training.texts import TrainingTexts

BATCH_SIZE = 32
N_CLIPS = 400
HERE = Path(__file__).resolve()


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
        self.accelerator = make_accelerator(device, training_dtype(device, config.train.precision))
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

    def seconds(self, work: Callable[[], None]) -> float:
        """Time of some work, with the device's queue empty before and after."""
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def settings(encoder: str) -> Config:
    """The defaults with one tower."""
    return load_config([], [f"encoder.name={encoder}", f"train.batch_size={BATCH_SIZE}"])


def show(what: str, ratio: float, limit: float, detail: str) -> None:
    """One line for one ratio."""
    verdict = "ok" if ratio >= limit else "MISSED"
    print(f"{what:<46} {ratio:7.2f}   limit >= {limit:g} {verdict:<6}  {detail}", flush=True)


def steps_against_random_tensors(table: pd.DataFrame, device: torch.device) -> None:
    """(a) A step on cached clips against the same step on tensors that lie on the device."""
    for encoder, n_rounds in (("rescnn", 12), ("cnn4", 60)):
        trainer = Trainer(settings(encoder), table, device)
        random = replace(trainer.data, log_mels=RandomPictures(trainer.config, len(table), device))
        real_s, random_s = [], []
        for number in range(n_rounds + 2):
            times = [trainer.seconds(partial(trainer.step, data)) for data in (trainer.data, random)]
            if number >= 2:  # the first ones warm up
                real_s.append(times[0])
                random_s.append(times[1])
        rates = [BATCH_SIZE / median(each) for each in (real_s, random_s)]
        show(f"(a) {encoder}: step on cached clips ÷ limit", rates[0] / rates[1], 0.95,
             f"{rates[0]:.0f} against {rates[1]:.0f} clips/s")  # fmt: skip


def pipeline_against_the_thesis(table: pd.DataFrame, device: torch.device, n_threads: int) -> None:
    """(b) The input pipeline alone against a loader written per item."""
    config = settings("rescnn")
    loader = DataLoader(ThesisClips(list(table["path"])), BATCH_SIZE, shuffle=True, num_workers=n_threads)
    start = time.perf_counter()
    for _ in loader:
        pass
    thesis = len(table) / (time.perf_counter() - start)

    def epoch(data: TrainingData) -> None:
        for number, clips in enumerate(torch.randperm(len(data)).split(BATCH_SIZE)):
            training_batch(data, clips, config, seeded_generator(0, "batch", number), slice(None), device)

    with tempfile.TemporaryDirectory() as cache:
        before, os.environ["CLAPKIT_CACHE"] = os.environ.get("CLAPKIT_CACHE"), cache
        preparing = Trainer(config, table[:BATCH_SIZE], device)  # the towers are no part of the pipeline
        start = time.perf_counter()
        store = open_log_mels(open_waveforms(table, config.audio), config.audio, device).to_device(device)
        texts = TrainingTexts(table)
        data = TrainingData(
            store, torch.arange(len(table)), torch.ones(len(table)), texts,
            torch.zeros(len(texts.texts), 1), torch.zeros(len(table), 1),
        )  # fmt: skip
        epoch(data)
        preparing._wait()
        first = len(table) / (time.perf_counter() - start)
        later = len(table) / median(preparing.seconds(lambda: epoch(data)) for _ in range(5))
        os.environ.pop("CLAPKIT_CACHE") if before is None else os.environ.update(CLAPKIT_CACHE=before)
    on_gpu = device.type == "cuda"
    show("(b) first epoch ÷ thesis loader", first / thesis, 1.5, f"{first:.0f} against {thesis:.0f} clips/s")
    show("(b) later epochs ÷ thesis loader", later / thesis, 50 if on_gpu else 10,
         f"{later:.0f} against {thesis:.0f} clips/s")  # fmt: skip


def processes(arguments: argparse.Namespace) -> None:
    """(c) One process against two, each with one thread, on the same global batch."""
    rates = []
    for n_processes in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
        rates.append(float(_child(arguments, launcher, "throughput")))
    print(f"(c) 2 processes ÷ 1 process{rates[1] / rates[0]:27.2f}   {rates[1]:.0f} against {rates[0]:.0f} clips/s")


def memory(arguments: argparse.Namespace) -> None:
    """Peak anonymous memory; mapped pages of the cache are left out, for the system may take them back."""
    small, large = (float(_child(arguments, [], f"memory:{copies}")) for copies in (1, 10))
    print(f"memory of a run, 10× the clips ÷ 1×{large / small:19.2f}   {large:.0f} against {small:.0f} MB anonymous")


def _child(arguments: argparse.Namespace, launcher: list[str], task: str) -> str:
    command = [sys.executable, *launcher, str(HERE), "--child", task, "--threads", "1", "--device", arguments.device]
    command += ["--root", str(arguments.root)] if arguments.root else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=300).stdout
    return re.findall(r"result ([\d.]+)", printed)[-1]


def child(task: str, table: pd.DataFrame, device: torch.device) -> None:
    """What a subprocess measures and prints."""
    if task == "throughput":
        trainer = Trainer(settings("rescnn"), table, device)
        trainer.step(trainer.data)
        times = [trainer.seconds(lambda: trainer.step(trainer.data)) for _ in range(8)]
        if is_main_process():
            print(f"result {BATCH_SIZE / median(times)}")
        return
    copies = int(task.removeprefix("memory:"))
    peak = PeakMemory()
    shifted = [table.assign(start_s=0.001 * number) for number in range(copies)]  # other spans are other clips
    long_enough = pd.concat(shifted, ignore_index=True)
    trainer = Trainer(settings("cnn4"), long_enough, device)
    for _ in range(40):
        trainer.step(trainer.data)
    print(f"result {peak.stop_mb()}")


class PeakMemory:
    """Watches RssAnon of this process."""

    def __init__(self) -> None:
        self._peak_kb, self._running = 0, True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self._running:
            status = Path("/proc/self/status").read_text()
            self._peak_kb = max(self._peak_kb, int(re.search(r"RssAnon:\s+(\d+)", status).group(1)))
            time.sleep(0.02)

    def stop_mb(self) -> float:
        """Peak in MB."""
        self._running = False
        self._thread.join()
        return self._peak_kb / 1000


def machine(device: torch.device, n_threads: int) -> str:
    """What the figures were measured on."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu.group(1) if cpu else platform.machine()
    dtype = str(training_dtype(device, "auto")).removeprefix("torch.")
    return f"{name}, {n_threads} threads, {dtype}, torch {torch.__version__}, Python {platform.python_version()}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--part", choices=["a", "b", "c", "memory", "all"], default="all")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    manifest = load_manifest("us8k" if arguments.root else "synthetic", arguments.root)
    chosen = np.linspace(0, len(manifest.table) - 1, N_CLIPS).astype(int)
    table = manifest.table.iloc[chosen].reset_index(drop=True)
    if arguments.child:
        child(arguments.child, table, device)
        return
    if hasattr(os, "sched_setaffinity") and device.type == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    print(f"{machine(device, arguments.threads)}\n{N_CLIPS} clips of {manifest.dataset}, batches of {BATCH_SIZE}")
    if arguments.part in ("a", "all"):
        steps_against_random_tensors(table, device)
    if arguments.part in ("b", "all"):
        pipeline_against_the_thesis(table, device, arguments.threads)
    if arguments.part in ("c", "all"):
        processes(arguments)
    if arguments.part in ("memory", "all"):
        memory(arguments)


if __name__ == "__main__":
    main()
