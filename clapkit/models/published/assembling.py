"""A checkpoint from a config, a text tower and renamed weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from clapkit.config import Config, TextConfig
from clapkit.errors import CheckpointError
from clapkit.models.checkpoint import Checkpoint
from clapkit.models.clap import CLAP
from clapkit.models.published.renaming import Rules, rename
from clapkit.models.weights import load_strictly

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from clapkit.models.text_encoder import TextEncoder

ADVICE = "the file was changed, or is of another model"
LARGEST_FILTER_DIFFERENCE = 1e-4
"""Of the largest value of a mel filter; float32 rounds differently in librosa and in torchaudio."""


def new_tower(structure: PretrainedConfig, config: TextConfig) -> TextEncoder:
    """A text tower with random weights, which finds its tokenizer by the config's name when a text comes."""
    from clapkit.models.text_encoder import TextEncoder
    from clapkit.models.text_towers import build_transformer

    transformer = build_transformer(structure, config.pooling)
    return TextEncoder(transformer, config.name, config.pooling, config.context_length)


def assemble(
    config: Config, tower: TextEncoder | None, weights: Mapping[str, Tensor], rules: Rules, origin: str,
    filters: Tensor | None = None,
) -> Checkpoint:  # fmt: skip
    """Build the model and give it its weights, every one of them.

    Args:
        config: its settings.
        tower: its text tower, still random; None for a model that reads no text.
        weights: as published.
        rules: what becomes of each key.
        origin: the file or folder, for messages.
        filters: ``(n_fft // 2 + 1, n_mels)`` mel filters kept in the checkpoint, which the front-end must have too.

    Raises:
        CheckpointError: a key too many, too few, or of another shape, or other mel filters.
    """
    clap = CLAP(config, 0, tower.text_dim if tower else config.model.embed_dim, tower)
    load_strictly(clap, rename(weights, rules, origin), origin, ADVICE)
    if filters is not None:
        own = clap.log_mel.mel.mel_scale.fb
        if filters.shape != own.shape or float((filters - own).abs().max() / own.max()) > LARGEST_FILTER_DIFFERENCE:
            raise CheckpointError(
                f"{origin}: was trained with mel filters other than {config.audio.n_mels} from "
                f"{config.audio.f_min_hz:g} to {config.audio.f_max_hz:g} Hz; {ADVICE}."
            )
    return Checkpoint(clap=clap.eval(), labels=[])
