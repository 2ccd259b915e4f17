"""How much accuracy is left when sounds arrive as users bring them, and what the model says of silence.

    python benchmarks/robustness.py us8k=DIR/UrbanSound8K:FOLD [esc50=DIR/ESC-50-master:FOLD ...] [--checkpoint DIR]

FOLD is one that the checkpoint never heard. A change is done to a file's samples at its own rate, before clapkit gets
them. Street noise is the sum of eight clips of engines, air conditioners and children from the other folds of
UrbanSound8K, 10 dB below the clip.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import soxr

import clapkit
from clapkit.audio.io import load_waveform
from clapkit.data.datasets import load_manifest
from clapkit.data.manifest import Manifest
from clapkit.evaluation.evaluate import evaluate
from clapkit.progress import progress_bar, show_progress

STREET_LABELS = ("engine idling", "air conditioner", "children playing")
N_STREET = 8
STREET_SNR_DB = 10
NEW_RATE = 8_000
LONG_S, SHORT_S = 30, 0.5
MP3_QUALITY = 0.9  # libsndfile's scale: about 48 kbit/s for mono
N_SILENT = 200

Change = Callable[[np.ndarray, int], tuple[np.ndarray, int]]


@dataclass
class Street:
    """Adds street noise; each clip hears another street."""

    clips: pd.DataFrame
    generator: np.random.Generator

    def __call__(self, samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        """The samples with noise, and their rate."""
        noise = np.zeros_like(samples)
        for path in self.clips["path"].sample(N_STREET, random_state=self.generator):
            noise += np.resize(load_waveform(path, rate)[0], len(samples))
        gain = np.sqrt(power(samples) / max(power(noise), 1e-12) * 10 ** (-STREET_SNR_DB / 10))
        return samples + gain * noise, rate


def power(samples: np.ndarray) -> float:
    """Mean square."""
    return float(np.mean(samples**2))


def telephone(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Resampled to 8 kHz."""
    return soxr.resample(samples, rate, NEW_RATE), NEW_RATE


def mp3(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Coded and decoded."""
    coded = io.BytesIO()
    soundfile.write(coded, np.clip(samples, -1, 1), rate, format="MP3", compression_level=MP3_QUALITY)
    coded.seek(0)
    return soundfile.read(coded, dtype="float32")


def stereo(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """A second microphone hears the same 5 ms later and 6 dB softer."""
    late = np.concatenate([np.zeros(rate // 200, samples.dtype), samples])[: len(samples)]
    return np.stack([samples, late / 2]), rate


def softer(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """20 dB down, then 16 bits."""
    return np.round(samples / 10 * 32767).astype(np.float32) / 32767, rate


def louder(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """20 dB up, as floats."""
    return samples * 10, rate


def clipped(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """20 dB up, and cut at full scale as a recorder does."""
    return np.clip(samples * 10, -1, 1), rate


def short(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """The loudest half second."""
    length = min(round(SHORT_S * rate), len(samples))
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return samples[start : start + length], rate


def repeated(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Again and again for 30 s."""
    return np.resize(samples, LONG_S * rate), rate


def once(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Once, in the middle of 30 s of faint hiss (-80 dBFS)."""
    long = (1e-4 * np.random.default_rng(0).standard_normal(LONG_S * rate)).astype(np.float32)
    start = (len(long) - len(samples)) // 2
    long[start : start + len(samples)] += samples[: len(long) - start]
    return long, rate


CHANGES: dict[str, Change] = {
    "as they are": lambda samples, rate: (samples, rate), "8 kHz": telephone, "MP3": mp3, "stereo": stereo,
    "20 dB softer, 16 bits": softer, "20 dB louder": louder, "20 dB louder, clipped": clipped,
    "loudest 0.5 s": short, "30 s, repeated": repeated, "30 s, heard once": once,
}  # fmt: skip


def accuracies(model: clapkit.AudioTextModel, manifest: Manifest, rows: pd.DataFrame, change: Change) -> list[float]:
    """By the head and by prompts, on changed clips."""
    waveforms = {}
    with progress_bar("Changing clips", len(rows)) as advance:
        for index, path in rows["path"].items():
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            waveforms[index] = model.load_waveform(*change(samples.mean(axis=1), rate))
            advance()
    figures = evaluate(
        model, manifest.dataset, rows, list(manifest.labels), ("head", "zeroshot"), waveforms=waveforms
    ).figures
    assert not any(each["leaky"] for each in figures.values()), "the checkpoint was trained on this fold"
    return [figures[task]["accuracy"] for task in ("head", "zeroshot")]


def describe_silence(model: clapkit.AudioTextModel) -> None:
    """The best score that each kind of nothing gets."""
    generator = np.random.default_rng(0)
    rate = model.config.audio.sample_rate
    words = ["dog barking", "siren", "rain", "engine idling"]
    print(f"{'of nothing, 4 s':<20}{'best of ' + str(len(model.labels)) + ' by head':<38}best of 4 by prompts")
    kinds = {
        "digital silence": 0.0,
        "16-bit dither": 10 ** (-98 / 20),
        "hiss at -80 dBFS": 1e-4,
        "hiss at -60 dBFS": 1e-3,
    }
    for name, level in kinds.items():
        clips = [(level * generator.standard_normal(4 * rate)).astype(np.float32) for _ in range(N_SILENT)]
        by_head = [scores[0] for scores in model.classify(clips)]
        by_words = [scores[0] for scores in model.zeroshot(clips, words)]
        shown = []
        for scores in (by_head, by_words):
            values = [score.score for score in scores]
            common = pd.Series([score.label for score in scores]).mode()[0]
            shown.append(f"{np.median(values):.2f} (95 % < {np.quantile(values, 0.95):.2f}) {common}")
        print(f"{name:<20}{shown[0]:<38}{shown[1]}")


def main() -> None:
    """Read the options, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="+", metavar="DATASET=ROOT:FOLD")
    parser.add_argument("--checkpoint", default="base")
    options = parser.parse_args()
    show_progress(True)
    model = clapkit.load(options.checkpoint)
    street, tests = None, {}
    for test in options.tests:
        dataset, place = test.split("=", 1)
        root, fold = place.rsplit(":", 1)
        manifest = load_manifest(dataset, Path(root))
        table = manifest.table
        tests[f"{dataset} fold {fold}"] = manifest, table[table["fold"] == int(fold)]
        if dataset == "us8k":
            others = table[(table["fold"] != int(fold)) & table["label"].isin(STREET_LABELS)]
            street = Street(others, np.random.default_rng(0))
    changes = CHANGES if street is None else CHANGES | {"street noise, 10 dB": street}
    print(f"{'accuracy (head, prompts)':<24}" + "".join(f"{name:>22}" for name in tests))
    for name, change in changes.items():
        cells = [accuracies(model, manifest, rows, change) for manifest, rows in tests.values()]
        print(f"{name:<24}" + "".join(f"{head:>14.3f}  {words:.3f} " for head, words in cells), flush=True)
    print()
    describe_silence(model)


if __name__ == "__main__":
    main()
