"""Folders of transformers' ``ClapModel``, which holds LAION's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clapkit.config import load_config, preset
from clapkit.errors import CheckpointError
from clapkit.models.checkpoint import Checkpoint
from clapkit.models.published.assembling import assemble, new_tower
from clapkit.models.published.reading import read_weights
from clapkit.models.published.renaming import TEXT_RULES, Rules, within
from clapkit.models.tokenizer import has_tokenizer

CONFIG_FILE, FRONT_END_FILE = "config.json", "preprocessor_config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
PROJECTION: Rules = ((r"(linear[12]\..*)", r"\1"),)
RULES: Rules = (
    (r"audio_model\.(audio_encoder\..*)", r"audio_encoder.transformer.\1"),
    *within("text_model.", "text_encoder.transformer.", TEXT_RULES),
    *within("audio_projection.", "audio_projection.", PROJECTION),
    *within("text_projection.", "text_projection.", PROJECTION),
    (r"logit_scale_a", "logit_scale"),
    (r"logit_scale_t", "text_logit_scale"),
)
HTSAT_DEFAULTS = {
    "spec_size": 256, "num_mel_bins": 64, "window_size": 8, "patch_size": 4, "mlp_ratio": 4.0, "qkv_bias": True,
    "hidden_act": "gelu", "projection_hidden_act": "relu", "enable_patch_layer_norm": True, "aff_block_r": 4,
    "patch_stride": (4, 4), "patch_embed_input_channels": 1, "flatten_patch_embeds": True, "layer_norm_eps": 1e-5,
}  # fmt: skip
"""Settings that clapkit's HTSAT does not vary."""


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder is one of ``ClapModel.save_pretrained``."""
    return (folder / CONFIG_FILE).is_file() and _read_json(folder / CONFIG_FILE).get("model_type") == "clap"


def read_hugging_face(folder: Path) -> Checkpoint:
    """Read a folder written by ``ClapModel.save_pretrained`` and ``ClapProcessor.save_pretrained``.

    Raises:
        CheckpointError: files are missing, or it is built as no published model is.
    """
    from transformers import ClapConfig, RobertaConfig

    structure = ClapConfig(**_read_json(folder / CONFIG_FILE))
    audio, text = structure.audio_config, structure.text_config
    for key, value in HTSAT_DEFAULTS.items():
        given = getattr(audio, key)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise CheckpointError(f"{folder}: audio_config.{key}={given}; clapkit reads {value} only.")
    name = "laion-fused" if audio.enable_fusion else "laion"
    overrides = [
        f"model.embed_dim={structure.projection_dim}", "model.head=false",
        f"encoder.width={audio.patch_embeds_hidden_size}", f"encoder.depths={list(audio.depths)}",
        f"encoder.n_heads={list(audio.num_attention_heads)}", "audio.sixteen_bits=false",
        *_front_end(folder, is_fused=audio.enable_fusion),
    ]  # fmt: skip
    config = load_config([preset(name)], overrides)
    shared = {key: value for key, value in text.to_dict().items() if key not in ("model_type", "architectures")}
    tower = new_tower(RobertaConfig(**shared), config.text)
    if has_tokenizer(folder):
        tower.use_tokenizer(str(folder))
    file = next((folder / file for file in WEIGHTS_FILES if (folder / file).is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder}: holds no {' or '.join(WEIGHTS_FILES)}; get it again.")
    return assemble(config, tower, read_weights(file), RULES, str(file))


def _front_end(folder: Path, *, is_fused: bool) -> list[str]:
    """Overrides of ``audio`` from the feature extractor's settings, where they are there."""
    if not (folder / FRONT_END_FILE).is_file():
        return []
    settings = _read_json(folder / FRONT_END_FILE)
    truncation = "fusion" if is_fused else "rand_trunc"  # it also says which mel filters are meant
    if settings.get("truncation", truncation) != truncation:
        raise CheckpointError(
            f"{folder / FRONT_END_FILE}: truncation={settings['truncation']}, but enable_fusion={is_fused} in "
            f"{CONFIG_FILE} needs {truncation}; take both files from the same model."
        )
    names = {
        "sampling_rate": "sample_rate", "max_length_s": "window_s", "hop_length": "hop_length",
        "fft_window_size": "n_fft", "frequency_min": "f_min_hz", "frequency_max": "f_max_hz", "padding": "padding",
        "top_db": "top_db", "feature_size": "n_mels",
    }  # fmt: skip
    given = {new: settings[old] for old, new in names.items() if settings.get(old) is not None}
    return [f"audio.{key}={value}" for key, value in given.items()]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError):
        document = None
    if not isinstance(document, dict):
        raise CheckpointError(f"{file}: is not readable as JSON; get it again.")
    return document
