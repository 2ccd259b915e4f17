"""Finds sounds at known times in half an hour of street noise, through an index and text queries.

    python benchmarks/moments.py --us8k DIR/UrbanSound8K --esc50 DIR/ESC-50-master --fold 1 --checkpoint RUN

Street and events are recordings of a fold that the checkpoint never heard. Each event is laid over the street at a
signal-to-noise ratio drawn from --snr-db. A hit is right when it overlaps an event of its class that no better hit
took.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

import clapkit
from clapkit.audio.io import load_waveform
from clapkit.data.datasets import load_manifest
from clapkit.progress import show_progress
from clapkit.search.index import AudioIndex
from clapkit.search.nearest import Hit

RATE = 22_050
STREET_LABELS = ("engine idling", "air conditioner", "children playing")
EVENT_LABELS = {
    "us8k": ("dog barking", "siren", "car horn", "gun shot"),
    "esc50": ("crying baby", "church bells", "rooster crowing", "glass breaking", "clapping", "crow cawing"),
}
N_LAYERS = 4
"""Street clips that are heard at the same time."""
QUIETEST = 0.03
"""Part of a clip's largest amplitude below which its beginning and end are cut off."""


def make_street(paths: pd.Series, seconds: int, generator: np.random.Generator) -> np.ndarray:
    """``(n_samples,)`` of several layers of clips one after the other, each at the same power."""
    street = np.zeros(seconds * RATE, np.float32)
    for _ in range(N_LAYERS):
        layer: list[np.ndarray] = []
        while sum(map(len, layer)) < len(street):
            clip = load_waveform(paths.sample(random_state=generator).iloc[0], RATE)[0]
            layer.append(clip / max(np.sqrt(np.mean(clip**2)), 1e-4))
        street += np.concatenate(layer)[: len(street)]
    return street * 0.02 / np.sqrt(np.mean(street**2))


def trimmed(clip: np.ndarray) -> np.ndarray:
    """Without the silence around it."""
    loud = np.flatnonzero(np.abs(clip) >= QUIETEST * np.abs(clip).max())
    return clip[loud[0] : loud[-1] + 1]


def lay_events(
    street: np.ndarray, clips: pd.DataFrame, snr_db: tuple[float, float], generator: np.random.Generator
) -> pd.DataFrame:
    """Add each clip once, in slots of equal length and random order; ``label``, ``start_s``, ``end_s``."""
    slot = len(street) // len(clips)
    events = []
    for place, (path, label) in enumerate(clips.sample(frac=1, random_state=generator)[["path", "label"]].values):
        sound = trimmed(load_waveform(path, RATE)[0])[:slot]
        start = place * slot + int(generator.integers(slot - len(sound) + 1))
        under = street[start : start + len(sound)]
        gain = np.sqrt(np.mean(under**2) / np.mean(sound**2)) * 10 ** (generator.uniform(*snr_db) / 20)
        street[start : start + len(sound)] += gain * sound
        events.append((label, start / RATE, (start + len(sound)) / RATE))
    return pd.DataFrame(events, columns=["label", "start_s", "end_s"])


def n_right(hits: list[Hit], events: pd.DataFrame) -> tuple[int, list[float]]:
    """Hits that overlap an event which no better one took, and the intersection over union of each."""
    taken: set[int] = set()
    overlaps = []
    for hit in hits:
        shared = np.minimum(events["end_s"], hit.end_s) - np.maximum(events["start_s"], hit.start_s)
        free = shared[(shared > 0) & ~shared.index.isin(taken)]
        if len(free):
            best = free.idxmax()
            taken.add(best)
            union = max(events["end_s"][best], hit.end_s) - min(events["start_s"][best], hit.start_s)
            overlaps.append(free[best] / union)
    return len(taken), overlaps


def main() -> None:
    """Make the scene, index it, look for every class, print precision and recall."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--us8k", type=Path, required=True)
    parser.add_argument("--esc50", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--checkpoint", default="base")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--per-class", type=int, default=6)
    parser.add_argument("--snr-db", type=float, nargs=2, default=(5.0, 15.0))
    parser.add_argument("--wav", type=Path, help="keep the scene here")
    options = parser.parse_args()
    show_progress(True)
    model, generator, chosen = clapkit.load(options.checkpoint), np.random.default_rng(0), []
    for dataset, root in (("us8k", options.us8k), ("esc50", options.esc50)):
        table = load_manifest(dataset, root).table
        table = table[table["fold"] == options.fold]
        assert not table["source"].isin(model.checkpoint.sources).any(), "the checkpoint was trained on this fold"
        if dataset == "us8k":
            paths = table["path"][table["label"].isin(STREET_LABELS)]
            street = make_street(paths, 60 * options.minutes, generator)
        for label in EVENT_LABELS[dataset]:
            own = table[table["label"] == label].drop_duplicates("source")  # no recording twice
            chosen.append(own.sample(min(options.per_class, len(own)), random_state=generator))
    events = lay_events(street, pd.concat(chosen), tuple(options.snr_db), generator)
    with tempfile.TemporaryDirectory() as folder:
        file = options.wav or Path(folder) / "scene.wav"
        soundfile.write(file, np.clip(street, -1, 1), RATE)
        index = AudioIndex.build(model, file)
        low, high = options.snr_db
        print(
            f"{options.minutes} min, {len(events)} events {low:g} to {high:g} dB above the street, {len(index)} windows"
        )
        print(f"{'query':<18}{'events':>7}{'precision':>11}{'recall':>8}{'IoU':>6}   with twice the hits:{'recall':>8}")
        rows = []
        for label, own in events.groupby("label"):
            own, n = own.reset_index(drop=True), len(own)
            hits = index.search(label, k=2 * n)
            first, overlaps = n_right(hits[:n], own)
            more, _ = n_right(hits, own)
            row = n, first / len(hits[:n]), first / n, float(np.mean(overlaps)) if overlaps else 0.0, more / n
            rows.append(row)
            print_row(label, row)
        print_row("mean", (len(events), *np.mean(rows, axis=0)[1:]))


def print_row(name: str, row: tuple[float, ...]) -> None:
    """One line of the table."""
    n, precision, recall, overlap, more = row
    print(f"{name:<18}{n:>7}{precision:>11.2f}{recall:>8.2f}{overlap:>6.2f}{more:>31.2f}", flush=True)


if __name__ == "__main__":
    main()
