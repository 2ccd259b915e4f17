"""Keys of published checkpoints to clapkit's: every one is renamed, or named as not needed, or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clapkit.errors import CheckpointError

Rules = Sequence[tuple[str, str | None]]
"""Patterns of whole keys with what they become; None: not needed. The first that fits counts."""

HTSAT_RULES: Rules = (
    (r"bn0\.(.*)", r"batch_norm.\1"),
    (r"(patch_embed\..*|norm\..*)", r"\1"),
    (r"(layers\.\d+\.downsample\..*)", r"\1"),
    (r"(layers\.\d+\.blocks\.\d+)\.norm1\.(.*)", r"\1.layernorm_before.\2"),
    (r"(layers\.\d+\.blocks\.\d+)\.norm2\.(.*)", r"\1.layernorm_after.\2"),
    (r"(layers\.\d+\.blocks\.\d+)\.attn\.proj\.(.*)", r"\1.attention.output.dense.\2"),
    (r"(layers\.\d+\.blocks\.\d+)\.attn\.(relative_position\w+|query\..*|key\..*|value\..*)", r"\1.attention.self.\2"),
    (r"(layers\.\d+\.blocks\.\d+)\.mlp\.fc1\.(.*)", r"\1.intermediate.dense.\2"),
    (r"(layers\.\d+\.blocks\.\d+)\.mlp\.fc2\.(.*)", r"\1.output.dense.\2"),
    (r"layers\.\d+\.blocks\.\d+\.attn_mask", None),  # follows from the sizes
    (r"(tscam_conv|head|spectrogram_extractor|logmel_extractor)\..*", None),  # AudioSet's classes; the front-end
)
"""HTS-AT's own names to those of transformers' ``ClapAudioEncoder``."""

TEXT_RULES: Rules = (
    (r"(.*\.)?(position_ids|token_type_ids)", None),  # follow from the sizes
    (r"h\.\d+\.attn\.(bias|masked_bias)", None),
    (r"(.*)", r"\1"),
)
"""Text towers keep the names of transformers."""


def within(source: str, target: str, rules: Rules) -> Rules:
    """Rules for the keys below ``source``, which move below ``target``."""
    return [(re.escape(source) + pattern, None if new is None else target + new) for pattern, new in rules]


def rename(weights: Mapping[str, Tensor], rules: Rules, origin: str) -> dict[str, Tensor]:
    """Give every tensor its name in clapkit.

    Raises:
        CheckpointError: a key that no rule knows.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, value in _split_qkv(weights).items():
        for pattern, new in rules:
            if match := re.fullmatch(pattern, key):
                if new is not None:
                    renamed[match.expand(new)] = value
                break
        else:
            unknown.append(key)
    if unknown:
        raise CheckpointError(
            f"{origin}: {len(unknown)} key(s) that this architecture does not have, such as {unknown[0]}; "
            "the file was changed, or is of another model."
        )
    return renamed


def _split_qkv(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """HTS-AT keeps queries, keys and values in one matrix, transformers in three."""
    split: dict[str, Tensor] = {}
    for key, value in weights.items():
        if match := re.fullmatch(r"(.*\.attn)\.qkv\.(weight|bias)", key):
            for name, part in zip(("query", "key", "value"), torch.chunk(value, 3), strict=True):
                split[f"{match[1]}.{name}.{match[2]}"] = part.contiguous()
        else:
            split[key] = value
    return split
