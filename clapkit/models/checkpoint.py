"""A checkpoint folder and back: safetensors weights, YAML settings, the text tower's structure, known texts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from clapkit.config import NO_TEXT_TOWER, AudioConfig, Config, load_config, save_config
from clapkit.errors import CheckpointError, ConfigError, TextModelError
from clapkit.models.clap import CLAP
from clapkit.models.weights import in_half, load_strictly, round_to_half, weights_fingerprint
from clapkit.storage import replacing_folder

if TYPE_CHECKING:
    from clapkit.models.caption import Captioner
    from clapkit.models.text_encoder import TextEncoder

FORMAT_VERSION = 1
RECORD_FILE, CONFIG_FILE, METRICS_FILE, SOURCES_FILE = "checkpoint.yaml", "config.yaml", "metrics.json", "sources.txt"
WEIGHTS_FILE, TEXTS_FILE, TEXT_FOLDER = "model.safetensors", "texts.safetensors", "text"
CARD_FILE, CAPTION_FOLDER = "README.md", "caption"
LATER_SETTINGS = {
    "filter_rate_hz": None, "padding": "zero", "fused_s": None, "sixteen_bits": False, "level": "absolute",
}  # fmt: skip
"""Settings that format 1 did not have, with what they were then; so older checkpoints keep their fingerprint."""

RECORD_KINDS = {"labels": list, "text": dict, "fingerprint": dict, "training": dict}


@dataclass
class Checkpoint:
    """A model and what is known about it.

    Attributes:
        clap: the network; it holds the text tower only when that was trained.
        labels: what the linear head tells apart, and the labels trained on.
        text_sha256: hash of the frozen text tower's weights; None when the tower is inside.
        texts: known texts with their vectors ``(embed_dim,)``, so that they need no text tower.
        training: how it was trained: dataset, folds, clips, epochs, device, seconds, licence.
        metrics: figures on the unseen part.
        sources: the recordings trained on, so that a test can say what was heard before.
        captioner: what writes captions; None where the model cannot.
    """

    clap: CLAP
    labels: list[str]
    text_sha256: str | None = None
    texts: dict[str, np.ndarray] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    captioner: Captioner | None = None


def save_checkpoint(
    checkpoint: Checkpoint, folder: Path, *, card: str | None = None, half: bool = False, overwrite: bool = False
) -> None:
    """Write a checkpoint folder in one step: it is there completely or not at all.

    Args:
        checkpoint: what to save.
        folder: where; its parents are made.
        card: text of its README.md; None for none.
        half: as in :func:`write_checkpoint`.
        overwrite: replace an existing folder, which stays until the new one is complete.

    Raises:
        StorageError: the folder exists and ``overwrite`` is off, or the disk is full.
    """
    with replacing_folder(folder, RECORD_FILE, overwrite=overwrite) as partial:
        write_checkpoint(checkpoint, partial, half=half)
        if card is not None:
            (partial / CARD_FILE).write_text(card, encoding="utf-8")


def write_checkpoint(checkpoint: Checkpoint, folder: Path, *, half: bool = False) -> None:
    """Write a checkpoint's files into an existing folder; with ``half`` as float16, to which the model is rounded."""
    clap = checkpoint.clap
    if half:
        round_to_half(clap)
    state = {name: value.cpu().contiguous() for name, value in clap.state_dict().items()}
    save_file({name: in_half(value) if half else value for name, value in state.items()}, folder / WEIGHTS_FILE)
    save_config(clap.config, folder / CONFIG_FILE)
    record = {
        "format_version": FORMAT_VERSION,
        "labels": checkpoint.labels,
        "text": {"dim": clap.text_dim, "sha256": checkpoint.text_sha256},
        "fingerprint": {
            "weights": weights_fingerprint(clap),
            "preprocessing": audio_fingerprint(clap.config.audio),
        },
        "training": checkpoint.training,
        "config_lines": _n_lines(folder / CONFIG_FILE),
    }
    (folder / RECORD_FILE).write_text(yaml.safe_dump(record, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (folder / SOURCES_FILE).write_text("".join(f"{source}\n" for source in checkpoint.sources), encoding="utf-8")
    (folder / METRICS_FILE).write_text(json.dumps(checkpoint.metrics, indent=2) + "\n", encoding="utf-8")
    if clap.text_encoder is not None:
        clap.text_encoder.save_structure(folder / TEXT_FOLDER)
    if checkpoint.captioner is not None:
        from clapkit.models.caption import save_captioner

        save_captioner(checkpoint.captioner, folder / CAPTION_FOLDER)
    if checkpoint.texts:
        vectors = np.stack(list(checkpoint.texts.values())).astype(np.float16 if half else np.float32)
        save_arrays({"vectors": vectors}, folder / TEXTS_FILE, {"texts": json.dumps(list(checkpoint.texts))})


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder; every key must be accounted for.

    Raises:
        CheckpointError: not a checkpoint, of another version, damaged, or with missing or unexpected keys.
    """
    record = _read_record(folder)
    config = _read_config(folder, record)
    state = _read_arrays(folder / WEIGHTS_FILE, load_file)
    is_inside = record["text"]["sha256"] is None and config.text.name != NO_TEXT_TOWER
    text_encoder = _read_text_encoder(folder, config) if is_inside else None
    n_labels = len(record["labels"]) if config.model.head else 0
    clap = CLAP(config, n_labels, record["text"]["dim"], text_encoder)
    load_strictly(clap, state, str(folder / WEIGHTS_FILE), "restore the folder as it was saved")
    if (found := weights_fingerprint(clap)) != (saved := record["fingerprint"]["weights"]):
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: has fingerprint {found}, the saved weights had {saved}; "
            "restore the folder as it was saved."
        )
    return Checkpoint(
        clap=clap,
        labels=record["labels"],
        text_sha256=record["text"]["sha256"],
        texts=_read_texts(folder / TEXTS_FILE),
        training=record["training"],
        metrics=_read_json(folder / METRICS_FILE),
        sources=_read_text(folder / SOURCES_FILE).splitlines(),
        captioner=_read_captioner(folder / CAPTION_FOLDER),
    )


def audio_fingerprint(audio: AudioConfig) -> str:
    """A short hash of every preprocessing setting."""
    settings = {key: value for key, value in audio.model_dump().items() if LATER_SETTINGS.get(key, ...) != value}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _read_record(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder; give one written by clapkit train, or base.")
    try:
        record = yaml.safe_load((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: holds no {RECORD_FILE}, so it is not a clapkit checkpoint.") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        record = None
    version = record.get("format_version") if isinstance(record, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder / RECORD_FILE}: format version {version}, this clapkit reads version {FORMAT_VERSION}; "
            "train it again, or install the clapkit that wrote it."
        )
    wrong = [key for key, kind in RECORD_KINDS.items() if not isinstance(record.get(key), kind)]
    if not wrong:
        wrong = [f"text.{key}" for key in ("dim", "sha256") if key not in record["text"]]
        wrong += [f"fingerprint.{key}" for key in ("weights", "preprocessing") if key not in record["fingerprint"]]
    if wrong:
        raise CheckpointError(f"{folder / RECORD_FILE}: lacks {', '.join(wrong)}; restore the folder as it was saved.")
    return record


def _read_arrays(file: Path, read: Any) -> dict[str, Any]:
    try:
        return read(file)
    except (FileNotFoundError, OSError):
        raise CheckpointError(f"{file}: is missing; restore the folder as it was saved.") from None
    except SafetensorError as error:
        raise CheckpointError(f"{file}: damaged ({error}); restore the folder as it was saved.") from None


def _read_config(folder: Path, record: dict[str, Any]) -> Config:
    """The settings, whose preprocessing must be the one that the record was written with."""
    try:
        config = load_config([folder / CONFIG_FILE])
    except ConfigError as error:
        raise CheckpointError(f"{error} Restore the folder as it was saved.") from None
    if audio_fingerprint(config.audio) != record["fingerprint"]["preprocessing"]:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: its preprocessing has fingerprint {audio_fingerprint(config.audio)}, the model "
            f"was trained with {record['fingerprint']['preprocessing']}; restore the folder as it was saved."
        )
    if (n_lines := _n_lines(folder / CONFIG_FILE)) != record.get("config_lines", n_lines):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: has {n_lines} lines instead of {record['config_lines']}; "
            "restore the folder as it was saved."
        )
    return config


def _n_lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def _read_text_encoder(folder: Path, config: Config) -> TextEncoder:
    from clapkit.models.text_towers import text_encoder_from_structure  # transformers takes seconds to import

    try:
        return text_encoder_from_structure(folder / TEXT_FOLDER, config.text)
    except TextModelError as error:
        raise CheckpointError(f"{error} Restore the folder as it was saved.") from None


def _read_captioner(folder: Path) -> Captioner | None:
    if not folder.is_dir():
        return None
    from clapkit.models.caption import load_captioner

    return load_captioner(folder)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(_read_text(file))
    except json.JSONDecodeError:
        raise CheckpointError(f"{file}: damaged; restore the folder as it was saved.") from None


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{file}: is missing; restore the folder as it was saved.") from None


def _read_texts(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        return {}
    from safetensors import safe_open

    vectors = _read_arrays(file, load_arrays)["vectors"]
    with safe_open(file, framework="numpy") as opened:
        texts = json.loads(opened.metadata()["texts"])
    return dict(zip(texts, vectors.astype(np.float32), strict=True))
