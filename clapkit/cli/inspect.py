"""``clapkit datasets``, ``clapkit info`` and ``clapkit plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clapkit.cli.output import print_json

Json = Annotated[bool, Parameter(name="--json", negative="")]


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


def info(checkpoint: str = "base", *, json: Json = False) -> None:
    """What a checkpoint is: towers, sizes, labels, preprocessing, how it was trained.

    Args:
        checkpoint: a checkpoint folder, or the name of one that ships with clapkit.
        json: print one JSON document.
    """
    from clapkit.model import load

    model = load(checkpoint, device="cpu")
    config, record = model.config, model.checkpoint
    sizes = {
        "audio tower": sum(parameter.numel() for parameter in model.clap.audio_encoder.parameters()),
        "whole model": sum(parameter.numel() for parameter in model.clap.parameters()),
    }
    text_place = (
        f"frozen, sha256 {record.text_sha256[:12]}…" if record.text_sha256 else "trained, inside the checkpoint"
    )
    document = {
        "checkpoint": checkpoint,
        "audio": config.audio.model_dump(),
        "encoder": config.encoder.name,
        "text": f"{config.text.name} ({text_place})",
        "embed_dim": config.model.embed_dim,
        "parameters": sizes,
        "labels": model.labels,
        "known_texts": len(record.texts),
        "training": record.training,
        "fingerprint": model.fingerprint,
        "metrics": record.metrics,
    }
    if json:
        print_json(document)
        return
    audio, span = (
        config.audio,
        f"{config.audio.f_min_hz:g}–{config.audio.f_max_hz or config.audio.sample_rate / 2:g} Hz",
    )
    channels = "mono" if audio.n_channels == 1 else "stereo"
    print(f"{checkpoint}: {config.encoder.name} + {document['text']}, {config.model.embed_dim}-d")
    print(f"parameters     {sizes['audio tower']:,} in the audio tower, {sizes['whole model']:,} in all")
    windows = f"windows of {audio.window_s:g} s, {audio.n_mels} mels of {span}"
    print(f"preprocessing  {audio.sample_rate} Hz {channels}, {windows}")
    print(f"labels ({len(model.labels)})    {', '.join(model.labels)}")
    for name, value in record.training.items():
        print(f"{name:<14} {value}")
    print(f"known texts    {len(record.texts)} (these need no text tower)")
    print(f"fingerprint    weights {model.fingerprint['weights']}, preprocessing {model.fingerprint['preprocessing']}")
    for task, figures in record.metrics.items():
        shown = {name: value for name, value in figures.items() if isinstance(value, float)}
        print(f"{task:<14} " + ", ".join(f"{name} {value:.3f}" for name, value in shown.items()))


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
