"""What a run trains: the network, its text tower, and the data both learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clapkit.audio.augment import N_SILENT
from clapkit.audio.io import find_sounds
from clapkit.audio.silence import silent_pictures
from clapkit.config import NO_TEXT_TOWER, Config
from clapkit.data.cache import open_waveforms
from clapkit.data.log_mels import LogMelStore, open_log_mels
from clapkit.data.manifest import Manifest, make_table
from clapkit.errors import ConfigError
from clapkit.models.checkpoint import Checkpoint
from clapkit.models.clap import CLAP
from clapkit.models.opening import open_checkpoint
from clapkit.models.text_encoder import TextEncoder
from clapkit.models.text_towers import (
    find_text_folder,
    is_new_tower,
    is_trained,
    load_text_encoder,
    new_text_encoder,
    weights_sha256,
)
from clapkit.training.batches import TrainingData, seeded_generator
from clapkit.training.teacher import Teacher
from clapkit.training.texts import TrainingTexts, encode_all


@dataclass(frozen=True)
class Network:
    """A new model and the text tower it learns with.

    Attributes:
        clap: the model; it holds the text tower when that is trained, or came with the checkpoint it starts from.
        tower: the frozen text tower; None when it is trained.
        text_sha256: hash of a frozen tower's weights that are not part of the checkpoint.
    """

    clap: CLAP
    tower: TextEncoder | None
    text_sha256: str | None


def build_network(
    config: Config, labels: tuple[str, ...], texts: list[str], start: Checkpoint | None = None
) -> Network:
    """Make the network, with random weights or those of a checkpoint.

    Args:
        config: all settings; with a start, as :func:`settings_of_start` gives them.
        labels: what the head tells apart.
        texts: a new text tower's vocabulary is learned from these.
        start: whose towers and projections are trained further; its head only if its labels are the same.

    Raises:
        ConfigError: a text tower that starts from scratch shall not be trained, or there is none.
    """
    n_labels = len(labels) if config.model.head else 0
    if config.text.name == NO_TEXT_TOWER:
        raise ConfigError("text.name=none: contrastive training needs a text tower; start from another checkpoint.")
    if start is not None:
        return _continued(config, n_labels, labels, start)
    is_new = is_new_tower(config.text)
    if is_new and not is_trained(config.text):
        raise ConfigError(f"text.name={config.text.name} starts from scratch, so text.trainable must not be false.")
    tower = new_text_encoder(config.text, texts) if is_new else load_text_encoder(config.text)
    if is_trained(config.text):
        return Network(CLAP(config, n_labels, tower.text_dim, tower), None, None)
    sha256 = weights_sha256(find_text_folder(config.text.name))
    return Network(CLAP(config, n_labels, tower.text_dim), tower, sha256)


def settings_of_start(config: Config) -> tuple[Config, Checkpoint | None]:
    """Open the checkpoint that ``train.start_from`` names; its architecture replaces that of the config.

    Raises:
        CheckpointError: it cannot be read.
    """
    if config.train.start_from is None:
        return config, None
    start = open_checkpoint(config.train.start_from)
    own = start.clap.config
    model = own.model.model_copy(update={key: getattr(config.model, key) for key in ("head", "multilabel")})
    text = own.text.model_copy(update={"trainable": config.text.trainable})
    changes = {"audio": own.audio, "encoder": own.encoder, "text": text, "model": model}
    return config.model_copy(update=changes), start


def _continued(config: Config, n_labels: int, labels: tuple[str, ...], start: Checkpoint) -> Network:
    """The start's network with a head for these labels; a text tower inside it stays inside, trained or not."""
    inside = start.clap.text_encoder
    tower = inside or load_text_encoder(config.text, start.text_sha256)
    _ = tower.tokenizer  # a missing one is found now, before hours of preparation
    trained = is_trained(config.text)
    clap = CLAP(config, n_labels, start.clap.text_dim, tower if trained or inside is not None else None)
    given = start.clap.state_dict()
    if tuple(start.labels) != labels:
        given = {name: value for name, value in given.items() if not name.startswith("head.")}
    own = clap.state_dict()
    clap.load_state_dict(own | {name: value for name, value in given.items() if name in own})
    if trained:
        return Network(clap, None, None)
    if inside is not None:
        inside.requires_grad_(False)
    return Network(clap, tower, start.text_sha256)


def freeze_unused(clap: CLAP) -> None:
    """Parameters that no loss reaches get no optimizer state, and no gradient to wait for."""
    settings = clap.config.train
    unused: list[torch.nn.Module] = [clap.audio_encoder] if settings.freeze_audio else []
    if not settings.contrastive_weight:
        unused += [clap.audio_projection, clap.text_projection]
        clap.logit_scale.requires_grad_(False)
        if clap.logit_bias is not None:
            clap.logit_bias.requires_grad_(False)
        if clap.text_encoder is not None:
            unused.append(clap.text_encoder)
    if not settings.head_weight and clap.head is not None:
        unused.append(clap.head)
    for module in unused:
        module.requires_grad_(False)


def make_data(
    rows: pd.DataFrame, labels: tuple[str, ...], texts: TrainingTexts, network: Network, log_mels: LogMelStore,
    backgrounds: LogMelStore | None = None, silence: Tensor | None = None, teacher: Teacher | None = None,
) -> TrainingData:  # fmt: skip
    """Bring rows of a manifest into the form that the loop reads."""
    weights = drawing_weights(rows, network.clap.config.train.balance)
    vectors = None if network.tower is None else encode_all(network.tower, texts.texts)
    return TrainingData(
        log_mels, torch.tensor(rows.index.to_numpy()), weights, texts, vectors, label_targets(rows, labels),
        backgrounds, silence, teacher,
    )  # fmt: skip


def drawing_weights(rows: pd.DataFrame, balance: float) -> Tensor:
    """How often each clip is drawn in an epoch: ``weight · n^-balance`` for a recording of n clips.

    The epoch keeps its length: the weights' mean is that of the rows.

    Args:
        rows: of a manifest.
        balance: 0 for clips as they are, 1 for every recording as often as any other.

    Returns:
        ``(n_clips,)`` float32.
    """
    given = rows["weight"].to_numpy(dtype=np.float64)
    n_clips = rows.groupby("source")["source"].transform("size").to_numpy(dtype=np.float64)
    weights = given * n_clips**-balance
    return torch.tensor(weights * given.sum() / weights.sum(), dtype=torch.float32)


def label_targets(rows: pd.DataFrame, labels: tuple[str, ...]) -> Tensor:
    """``(n_clips, n_labels)`` float32, 1 for each label of a clip."""
    place = {label: number for number, label in enumerate(labels)}
    targets = torch.zeros(len(rows), len(labels))
    for row, (label, tags) in enumerate(zip(rows["label"], rows["tags"], strict=True)):
        own = [label] if isinstance(label, str) else tags if isinstance(tags, tuple) else ()
        for name in own:
            targets[row, place[name]] = 1
    return targets


def open_backgrounds(config: Config, device: torch.device) -> LogMelStore | None:
    """Pictures of the sounds in ``augment.background_folder``; None where there is none.

    Raises:
        AudioError: the folder is missing or has no sounds.
    """
    if config.augment.background_folder is None or not config.augment.background:
        return None
    sounds = find_sounds([Path(config.augment.background_folder)])
    table = make_table(path=[str(sound) for sound in sounds])
    return open_log_mels(open_waveforms(table, config.audio), config.audio, device).to_device(device)


def make_silence(config: Config, device: torch.device) -> Tensor | None:
    """Pictures of silence that take the place of clips; None where none does."""
    if not config.augment.silence:
        return None
    return silent_pictures(config.audio, N_SILENT, seeded_generator(config.train.seed, "silence", 0)).to(device)


@torch.inference_mode()
def known_vectors(network: Network, manifest: Manifest, texts_of: Callable[[str], list[str]]) -> dict[str, np.ndarray]:
    """Vectors ``(embed_dim,)`` of the texts that shall need no text tower later; none for a trained tower."""
    known = list(dict.fromkeys(text for label in manifest.labels for text in texts_of(label)))
    if network.tower is None or not known:
        return {}
    device = network.clap.logit_scale.device
    vectors = network.clap.eval().text_projection(encode_all(network.tower, known).to(device))
    return dict(zip(known, vectors.cpu().numpy(), strict=True))
