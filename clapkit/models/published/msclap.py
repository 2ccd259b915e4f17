"""msclap's checkpoints: Cnn14 with BERT (2022), HTSAT with GPT-2 (2023), HTSAT with a captioner (clapcap)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clapkit.config import load_config, preset
from clapkit.models.checkpoint import Checkpoint
from clapkit.models.published.assembling import assemble, new_tower
from clapkit.models.published.renaming import HTSAT_RULES, TEXT_RULES, Rules, within
from clapkit.models.published.sizes import bert_structure, gpt2_structure, htsat_settings

AUDIO, TEXT = "audio_encoder.base.", "caption_encoder.base."
HTSAT_PREFIX = "htsat."
HTSAT_PLACE = "audio_encoder.transformer.audio_encoder."
CLASSES = r"fc_audioset\..*"
"""Cnn14's classifier of AudioSet's labels."""


def projection_rules(source: str, target: str) -> Rules:
    """msclap's projection has clapkit's names."""
    return within(source, target, [(r"((linear1|linear2|layer_norm)\..*)", r"\1")])


def read_msclap_2022(weights: Mapping[str, Tensor], origin: str) -> Checkpoint:
    """Cnn14 and BERT, of which the first token is read."""
    config = load_config([preset("msclap-2022")], _sizes(weights, "audio_encoder.projection."))
    front_end = r"(spectrogram_extractor|logmel_extractor)\..*"
    rules = [
        *within(
            AUDIO, "audio_encoder.", [(CLASSES, None), (front_end, None), (r"((bn0|conv_block\d|fc1)\..*)", r"\1")]
        ),
        *_text_rules(skipped=r"pooler\..*"),
        *projection_rules("audio_encoder.projection.", "audio_projection."),
    ]
    tower = new_tower(bert_structure(weights, TEXT), config.text)
    filters = weights.get(f"{AUDIO}logmel_extractor.melW")
    return assemble(config, tower, weights, rules, origin, filters)


def read_msclap_2023(weights: Mapping[str, Tensor], origin: str) -> Checkpoint:
    """HTSAT and GPT-2."""
    audio = f"{AUDIO}{HTSAT_PREFIX}"
    overrides = [*_sizes(weights, "audio_encoder.projection."), *htsat_settings(weights, audio)]
    config = load_config([preset("msclap-2023")], overrides)
    rules = [
        *within(audio, HTSAT_PLACE, HTSAT_RULES),
        *_text_rules(),
        *projection_rules("audio_encoder.projection.", "audio_projection."),
    ]
    tower = new_tower(gpt2_structure(weights, TEXT), config.text)
    return assemble(config, tower, weights, rules, origin, weights.get(f"{audio}logmel_extractor.melW"))


def _text_rules(skipped: str | None = None) -> Rules:
    base = [*([(skipped, None)] if skipped else []), *TEXT_RULES]
    return [
        *within(TEXT, "text_encoder.transformer.", base),
        *projection_rules("caption_encoder.projection.", "text_projection."),
        (r"logit_scale", "logit_scale"),
    ]


def _sizes(weights: Mapping[str, Tensor], projection: str) -> list[str]:
    return [f"model.embed_dim={weights[f'{projection}linear1.weight'].shape[0]}", "model.head=false"]
