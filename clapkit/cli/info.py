"""``clapkit info``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clapkit.cli.options import Checkpoint, Json
from clapkit.cli.output import note, print_json

if TYPE_CHECKING:
    from clapkit.model import AudioTextModel


def info(checkpoint: Checkpoint = "base", *, json: Json = False) -> None:
    """What a checkpoint is: towers, sizes, labels, preprocessing, licence, how it was trained and what it heard."""
    from clapkit.device import choose_device
    from clapkit.errors import CheckpointError
    from clapkit.model import AudioTextModel
    from clapkit.models.opening import open_checkpoint
    from clapkit.models.published.catalogue import facts_of

    try:
        opened = open_checkpoint(checkpoint, download=False)
        document = describe(AudioTextModel(opened, choose_device("cpu"), checkpoint), checkpoint)
    except CheckpointError as error:  # not on this machine, or damaged
        facts = facts_of(checkpoint)
        if not facts:
            raise
        note(f"{error} This is what its publisher says:")
        document = {"checkpoint": checkpoint, "training": facts}
    if json:
        print_json(document)
        return
    for line in as_lines(document):
        print(line)


def describe(model: AudioTextModel, name: str) -> dict[str, Any]:
    """Everything that is known of a loaded model, ready for JSON."""
    config, record, clap = model.config, model.checkpoint, model.clap
    towers = {"audio tower": clap.audio_encoder, "text tower": clap.text_encoder, "caption model": record.captioner}
    sizes = {each: _n_parameters(tower) for each, tower in towers.items() if tower is not None}
    return {
        "checkpoint": name,
        "audio": config.audio.model_dump(),
        "encoder": config.encoder.name,
        "text": f"{config.text.name} ({_text_place(model)})",
        "embed_dim": config.model.embed_dim,
        "parameters": sizes | {"whole model": _n_parameters(clap) + sizes.get("caption model", 0)},
        "labels": model.labels,
        "known_texts": len(record.texts),
        "training": record.training,
        "fingerprint": model.fingerprint,
        "metrics": record.metrics,
    }


def as_lines(document: dict[str, Any]) -> list[str]:
    """The same for people."""
    if "audio" not in document:
        return [f"{name:<14} {value}" for name, value in document["training"].items()]
    lines = [f"{document['checkpoint']}: {document['encoder']} + {document['text']}, {document['embed_dim']}-d"]
    sizes = ", ".join(f"{size:,} in the {name}" for name, size in document["parameters"].items())
    lines.append(f"parameters     {sizes}")
    lines.append(f"preprocessing  {_preprocessing(document['audio'])}")
    labels = document["labels"]
    lines.append(f"labels ({len(labels)})    {', '.join(labels) or 'none of its own: give them in free words'}")
    lines += [f"{name:<14} {value}" for name, value in document["training"].items()]
    if document["known_texts"]:
        lines.append(f"known texts    {document['known_texts']} (these need no text tower)")
    fingerprint = document["fingerprint"]
    lines.append(f"fingerprint    weights {fingerprint['weights']}, preprocessing {fingerprint['preprocessing']}")
    for task, figures in document["metrics"].items():
        shown = {name: value for name, value in figures.items() if isinstance(value, float)}
        lines.append(f"{task:<14} " + ", ".join(f"{name} {value:.3f}" for name, value in shown.items()))
    return lines


def _text_place(model: AudioTextModel) -> str:
    if model.checkpoint.text_sha256:
        return f"frozen, sha256 {model.checkpoint.text_sha256[:12]}…"
    if model.clap.text_encoder is None:
        return "it reads no text"
    return "inside the checkpoint" + ("" if model.clap.text_encoder.has_tokenizer else ", its tokenizer is not")


def _preprocessing(settings: dict[str, Any]) -> str:
    from clapkit.config import AudioConfig

    audio = AudioConfig(**settings)
    span = f"{audio.f_min_hz:g}–{audio.f_max_hz or audio.sample_rate / 2:g} Hz"
    channels = "mono" if audio.n_channels == 1 else "stereo"
    short = {"zero": "padded with zeros", "repeat": "repeated and cut", "repeatpad": "repeated whole"}[audio.padding]
    text = f"{audio.sample_rate} Hz {channels}, windows of {audio.window_s:g} s, {audio.n_mels} mels of {span}"
    text += f", short clips are {short}"
    return text + (f", longer ones fused up to {audio.fused_s:g} s" if audio.fused_s else "")


def _n_parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
