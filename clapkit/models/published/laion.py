"""LAION's own pickles: HTSAT with RoBERTa, with and without fusion of long clips."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clapkit.config import load_config, preset
from clapkit.models.checkpoint import Checkpoint
from clapkit.models.published.assembling import assemble, new_tower
from clapkit.models.published.renaming import HTSAT_RULES, TEXT_RULES, Rules, within
from clapkit.models.published.sizes import htsat_settings, roberta_structure

AUDIO, TEXT = "audio_branch.", "text_branch."
HTSAT_PLACE = "audio_encoder.transformer.audio_encoder."
PROJECTION: Rules = ((r"0\.(.*)", r"linear1.\1"), (r"2\.(.*)", r"linear2.\1"))
RULES: Rules = (
    *within(AUDIO, HTSAT_PLACE, HTSAT_RULES),
    *within(TEXT, "text_encoder.transformer.", TEXT_RULES),
    *within("audio_projection.", "audio_projection.", PROJECTION),
    *within("text_projection.", "text_projection.", PROJECTION),
    (r"logit_scale_a", "logit_scale"),
    (r"logit_scale_t", "text_logit_scale"),
    (r"(audio|text)_transform\..*", None),  # a loss of its own in training
)


def is_fused(weights: Mapping[str, Tensor]) -> bool:
    """Whether the tower mixes several views of a long clip."""
    return f"{AUDIO}patch_embed.mel_conv2d.weight" in weights


def read_laion(weights: Mapping[str, Tensor], origin: str) -> Checkpoint:
    """HTSAT and RoBERTa, whose pooler is read."""
    overrides = [f"model.embed_dim={weights['audio_projection.0.weight'].shape[0]}", "model.head=false"]
    name = "laion-fused" if is_fused(weights) else "laion"
    config = load_config([preset(name)], [*overrides, *htsat_settings(weights, AUDIO)])
    tower = new_tower(roberta_structure(weights, TEXT), config.text)
    filters = None if is_fused(weights) else weights.get(f"{AUDIO}logmel_extractor.melW")  # fused ones are made outside
    return assemble(config, tower, weights, RULES, origin, filters)
