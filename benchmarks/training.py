"""How near training comes to the device's limit, as ratios measured side by side in one run.

    python benchmarks/training.py [--root DIR_WITH_UrbanSound8K] [--threads 2] [--device cpu|cuda] [--part a|b|c|memory]

Without --root the synthetic set is used. (a) interleaves two kinds of step and compares medians: both draw, augment,
run the towers forward and backward, clip and update; one takes its pictures from the cache, the other finds the same
random pictures on the device. In (b) the thesis's loader and the first epoch run once each, later epochs five times.
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
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import soundfile
import torch
from thesis_loader import ThesisClips
from torch.utils.data import DataLoader
from training_step import BATCH_SIZE, RandomPictures, Trainer, seconds, settings, wait

from clapkit.data.cache import open_waveforms
from clapkit.data.datasets import load_manifest
from clapkit.data.log_mels import open_log_mels
from clapkit.device import choose_dtype
from clapkit.training.batches import TrainingData, seeded_generator, training_batch
from clapkit.training.processes import is_main_process
from clapkit.training.texts import TrainingTexts

N_CLIPS = 400
HERE = Path(__file__).resolve()


def show(what: str, ratio: float, limit: float, detail: str) -> None:
    """One line for one ratio."""
    verdict = "ok" if ratio >= limit else "MISSED"
    print(f"{what:<46} {ratio:7.2f}   limit >= {limit:g} {verdict:<6}  {detail}", flush=True)


def steps_against_random_tensors(table: pd.DataFrame, device: torch.device) -> None:
    """(a) A step on cached clips against the same step on tensors that lie on the device."""
    for encoder, n_rounds in (("rescnn", 30), ("cnn4", 60)):
        trainer = Trainer(settings(encoder), table, device)
        random = replace(trainer.data, log_mels=RandomPictures(trainer.config, len(table), device))
        real_s, random_s = [], []
        for number in range(n_rounds + 2):
            kinds = [(trainer.data, real_s), (random, random_s)]
            for data, times in kinds if number % 2 else reversed(kinds):
                times.append(seconds(partial(trainer.step, data), device))
        rates = [BATCH_SIZE / median(each[2:]) for each in (real_s, random_s)]  # the first ones warm up
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
        start = time.perf_counter()
        store = open_log_mels(open_waveforms(table, config.audio), config.audio, device).to_device(device)
        texts = TrainingTexts(table)
        data = TrainingData(
            store, torch.arange(len(table)), torch.ones(len(table)), texts,
            torch.zeros(len(texts.texts), 1), torch.zeros(len(table), 1),
        )  # fmt: skip
        epoch(data)
        wait(device)
        first = len(table) / (time.perf_counter() - start)
        later = len(table) / median(seconds(partial(epoch, data), device) for _ in range(5))
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
        times = [seconds(partial(trainer.step, trainer.data), device) for _ in range(8)]
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
    dtype = str(choose_dtype(device, "auto")).removeprefix("torch.")
    return f"{name}, {n_threads} threads, {dtype}, torch {torch.__version__}, Python {platform.python_version()}"


def file_kinds(table: pd.DataFrame) -> str:
    """Rates and channels of the files, on which (b) depends."""
    kinds = Counter((info.samplerate, info.channels) for info in map(soundfile.info, table["path"]))
    return ", ".join(f"{count} at {rate} Hz × {channels}" for (rate, channels), count in kinds.most_common(3))


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
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: max(arguments.threads, 2)])  # (c) needs two
    print(machine(device, arguments.threads))
    print(f"{N_CLIPS} clips of {manifest.dataset} ({file_kinds(table)}), batches of {BATCH_SIZE}")
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
