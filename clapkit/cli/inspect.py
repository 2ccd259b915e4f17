"""``clapkit datasets`` and ``clapkit plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def datasets() -> None:
    """What is known, where it is looked for, how to get it."""
    from clapkit.data.datasets import PUBLISHED, find_root, search_folders
    from clapkit.errors import DatasetError

    for name, info in PUBLISHED.items():
        try:
            place = f"found at {find_root(name)}"
        except DatasetError:
            place = f"not on this machine; {info.way_to_get}"
        print(f"{name:<10} {info.title}: {info.contents}; {info.licence}\n{'':<10} {place}")
    print("folder     your own sounds: --root with one folder per class inside")
    print("csv        your own sounds: --root with a CSV of path and text (or label, tags, caption)")
    print("synthetic  made-up city sounds in UrbanSound8K's layout, written when needed")
    print("looked for in: " + ", ".join(str(folder) for folder in search_folders()) + " (CLAPKIT_DATA adds one)")


def plot(
    file: Path,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    checkpoint: str | None = None,
) -> None:
    """Draw a sound: waveform and log-mel picture.

    Args:
        file: a sound.
        output: the picture; <FILE's name>.png in the current folder when left out.
        checkpoint: draw with this model's preprocessing and add its five best labels.
    """
    from clapkit.audio.io import load_waveform
    from clapkit.audio.picture import log_mel_decibels
    from clapkit.config import AudioConfig
    from clapkit.evaluation.plots import plot_clip
    from clapkit.model import load

    model = load(checkpoint) if checkpoint else None
    audio = model.config.audio if model else AudioConfig()
    waveform = load_waveform(file, audio.sample_rate)
    scores = [(score.label, score.score) for score in model.classify(file, top_k=5)] if model else []
    output = output or Path(f"{file.stem}.png")
    plot_clip(waveform[0], log_mel_decibels(waveform, audio), audio, file.name, output, scores)
    print(f"saved {output}")
