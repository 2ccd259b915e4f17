"""Embedding real clips through clapkit and through the originals' own code: the same weights, side by side in one run.

    python benchmarks/embedding.py --root DIR_WITH_SOUNDS [--originals DIR ...] [--threads 2] [--clips 200]
                                   [--part htsat|cnn14|memory|all]

Both sides start from the files on disk and end with vectors in memory. The original gets the batch size that suits it
best; then both take turns, and the best run of each counts. The weights are random, with BatchNorm statistics of
real clips. msclap and torchlibrosa are looked for among the installed packages and in --originals.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
import transformers
from originals import Msclap2022, Original, TransformersClap
from torch import nn
from training import PeakMemory, machine
from training_step import wait

import clapkit
from clapkit.audio.io import find_sounds
from clapkit.device import choose_dtype
from clapkit.model import AudioTextModel
from clapkit.search.embed import encode_files

BATCH_SIZES = (8, 16, 32)
FLOAT32_LIMIT, GPU_LIMIT = 1.1, 5.0
BF16_LIMITS = {"htsat": 3.0, "cnn14": 1.7}
N_ROUNDS = 2
N_TRIAL_CLIPS = 32
N_COSINES = 32
N_BF16_COSINES = 8  # emulated, it takes seconds a clip
HERE = Path(__file__).resolve()


class Took(NamedTuple):
    """Seconds on the wall's clock, and of all threads together."""

    wall_s: float
    cpu_s: float


def show(what: str, ratio: float, limit: str, detail: str = "") -> None:
    """One line for one figure; ``limit`` is such as ``>= 1.1``."""
    bound = float(limit[3:])
    verdict = "ok" if (ratio >= bound if limit.startswith(">=") else ratio <= bound) else "MISSED"
    print(f"{what:<46} {ratio:8.4f}   limit {limit:<8} {verdict:<6}  {detail}".rstrip(), flush=True)


def note(what: str, detail: str) -> None:
    """One line without a limit."""
    print(f"{what:<46} {detail}", flush=True)


def compare(part: str, original: Original, files: list[Path], device: torch.device) -> None:
    """All rows of one architecture on one device."""
    model = clapkit.load(original.weights, device=device.type)
    few = files[:N_TRIAL_CLIPS]
    original.embed(few[:8], 8)  # the first ones warm up
    vectors_of(model, few[:8])
    trials = {size: took(lambda size=size: original.embed(few, size), device).wall_s for size in BATCH_SIZES}
    batch_size = min(trials, key=trials.get)
    theirs, ours = [], []
    for _ in range(N_ROUNDS):
        theirs.append(took(lambda: original.embed(files, batch_size), device))
        with parts_of(model, device) as spent:
            ours.append((took(lambda: vectors_of(model, files), device), spent))
    their_best, (our_best, spent) = min(theirs), min(ours, key=lambda run: run[0])
    our_rate, their_rate = (len(files) / best.wall_s for best in (our_best, their_best))
    limit = GPU_LIMIT if device.type == "cuda" else FLOAT32_LIMIT
    rates = f"{our_rate:.2f} against {their_rate:.2f} clips/s; CPU time {their_best.cpu_s / our_best.cpu_s:.2f} to 1"
    show(f"{original.name}, {device.type}: float32", our_rate / their_rate, f">= {limit:g}", rates)
    note("  the original", f"batches of {batch_size}; {original.loading}")
    shares(spent, our_best.wall_s)
    compare_vectors(original, model, files)
    compare_bf16(part, original, model, files, their_best.wall_s)


def compare_vectors(original: Original, model: AudioTextModel, files: list[Path]) -> None:
    """Cosines between both sides' vectors of the same samples: the originals resample, mix and crop in other ways."""
    audio = model.config.audio
    with tempfile.TemporaryDirectory() as place:
        same = [Path(place) / f"{number}.wav" for number in range(min(len(files), N_COSINES))]
        for file, source in zip(same, files, strict=False):
            waveform = model.load_waveform(source)[:, : round(audio.window_s * audio.sample_rate)]
            soundfile.write(file, waveform.T, audio.sample_rate, subtype="FLOAT")
        theirs, ours = original.embed(same, 8), vectors_of(model, same)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    other = float(np.median((ours @ ours.T)[~np.eye(len(ours), dtype=bool)]))
    show("  cosine to the original's vectors, smallest", float((theirs * ours).sum(axis=1).min()), ">= 0.999",
         f"{len(same)} clips, written at {audio.sample_rate} Hz first; between two of them {other:.4f}")  # fmt: skip


def compare_bf16(part: str, original: Original, model: AudioTextModel, files: list[Path], theirs_s: float) -> None:
    """--precision bf16: its speed where the processor has it, its cosine to float32 everywhere."""
    device = model.device
    fast = clapkit.load(original.weights, device=device.type, precision="bf16")
    some = files[:: max(len(files) // N_BF16_COSINES, 1)][:N_BF16_COSINES]
    cosines = (vectors_of(fast, some) * vectors_of(model, some)).sum(axis=1)
    if choose_dtype(device, "auto") == torch.bfloat16:
        ours = min(took(lambda: vectors_of(fast, files), device) for _ in range(N_ROUNDS)).wall_s
        limit = GPU_LIMIT if device.type == "cuda" else BF16_LIMITS[part]
        show("  bf16", theirs_s / ours, f">= {limit:g}", f"{len(files) / ours:.2f} clips/s, the original in float32")
    else:
        note("  bf16", "this processor has no bf16")
    show("  bf16: cosine to float32, smallest", float(cosines.min()), ">= 0.999", f"{len(some)} clips")


@contextmanager
def parts_of(model: AudioTextModel, device: torch.device) -> Iterator[Counter[str]]:
    """Collect the seconds spent decoding (in threads), in the mel front-end and in the network."""
    spent: Counter[str] = Counter()
    modules = {"mel": [model.clap.log_mel], "network": [model.clap.audio_encoder, model.clap.audio_projection]}
    handles = [hook for name, parts in modules.items() for part in parts for hook in timed(part, name, spent, device)]
    load_waveform = model.load_waveform

    def timed_load(*arguments: Any) -> np.ndarray:
        start = time.perf_counter()
        waveform = load_waveform(*arguments)
        spent["decode"] += time.perf_counter() - start
        return waveform

    model.load_waveform = timed_load
    yield spent
    del model.load_waveform
    for handle in handles:
        handle.remove()


def timed(module: nn.Module, name: str, spent: Counter[str], device: torch.device) -> list[Any]:
    """Hooks that add a module's seconds."""

    def before(*_: Any) -> None:
        wait(device)
        spent[name] -= time.perf_counter()

    def after(*_: Any) -> None:
        wait(device)
        spent[name] += time.perf_counter()

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]


def shares(spent: Counter[str], total_s: float) -> None:
    """Where clapkit's time went; decoding runs in threads beside the rest."""
    mel, network, decode = (spent[name] / total_s for name in ("mel", "network", "decode"))
    note("  clapkit's time", f"network {network:.0%}, mel {mel:.0%}, rest and waiting for sounds "
         f"{1 - mel - network:.0%}; threads decoded for {decode:.0%} of it")  # fmt: skip


def took(work: Callable[[], Any], device: torch.device) -> Took:
    """Time one piece of work."""
    gc.collect()
    start, start_cpu = time.perf_counter(), time.process_time()
    work()
    wait(device)
    return Took(time.perf_counter() - start, time.process_time() - start_cpu)


def vectors_of(model: AudioTextModel, files: Sequence[Path]) -> np.ndarray:
    """``(n_files, embed_dim)`` through clapkit's bulk embedding."""
    return np.stack([output.embedding for _, output in encode_files(model, files, strict=True).clips])


def memory(weights: Path, arguments: argparse.Namespace) -> None:
    """Peak anonymous memory of a process that embeds the list once, and of one that embeds it ten times over."""
    peaks = []
    for copies in (1, 10):
        command = [sys.executable, str(HERE), "--root", str(arguments.root), "--clips", str(arguments.clips),
                   "--threads", str(arguments.threads), "--child", f"{copies}:{weights}"]  # fmt: skip
        printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=3600).stdout
        peaks.append(float(re.findall(r"result ([\d.]+)", printed)[-1]))
    show(f"memory, {10 * arguments.clips} clips ÷ {arguments.clips}", peaks[1] / peaks[0], "<= 1.1",
         f"{peaks[1]:.0f} against {peaks[0]:.0f} MB anonymous")  # fmt: skip


def child(task: str, files: list[Path]) -> None:
    """What a subprocess measures and prints."""
    copies, _, weights = task.partition(":")
    peak = PeakMemory()
    encode_files(clapkit.load(weights, device="cpu"), files * int(copies), strict=True)
    print(f"result {peak.stop_mb()}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--originals", type=Path, nargs="+", default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--part", choices=["htsat", "cnn14", "memory", "all"], default="all")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sys.path.extend(map(str, arguments.originals))
    sounds = find_sounds([arguments.root])
    files = [sounds[place] for place in np.linspace(0, len(sounds) - 1, arguments.clips).astype(int)]
    if arguments.child:
        child(arguments.child, files)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    has_gpu = torch.cuda.is_available()
    transformers.logging.disable_progress_bar()
    print(machine(torch.device("cpu"), arguments.threads))
    kinds = Counter((info.samplerate, info.channels) for info in map(soundfile.info, files))
    described = ", ".join(f"{count} at {rate} Hz × {channels}" for (rate, channels), count in kinds.most_common(3))
    print(f"{len(files)} clips ({described}); {'GPU: ' + torch.cuda.get_device_name() if has_gpu else 'no GPU'}")
    with tempfile.TemporaryDirectory() as place:
        run(arguments, files, Path(place), ["cpu", "cuda"] if has_gpu else ["cpu"])


def run(arguments: argparse.Namespace, files: list[Path], place: Path, devices: list[str]) -> None:
    """The parts asked for."""
    for part, kind in (("htsat", TransformersClap), ("cnn14", Msclap2022)):
        if arguments.part not in (part, "all"):
            continue
        for device in map(torch.device, devices):
            try:
                original = kind(place / f"{part}-{device}", files, device)
            except ImportError as error:
                note(kind.name, f"msclap is not installed ({error})")
                break
            compare(part, original, files, device)
    if arguments.part in ("memory", "all"):
        weights = place / "memory"
        TransformersClap(weights, files, torch.device("cpu"))
        memory(weights, arguments)


if __name__ == "__main__":
    main()
