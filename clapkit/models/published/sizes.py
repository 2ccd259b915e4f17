"""Sizes of towers, read off their weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from transformers import PretrainedConfig

HEAD_DIM = 64
"""Numbers in one attention head of BERT, RoBERTa and GPT-2 in every published size."""


def htsat_settings(weights: Mapping[str, Tensor], prefix: str) -> list[str]:
    """Overrides of ``encoder`` for HTS-AT's own names below ``prefix``."""
    width = weights[f"{prefix}patch_embed.proj.weight"].shape[0]
    n_stages = _count(weights, rf"{re.escape(prefix)}layers\.(\d+)\.")
    depths, n_heads = [], []
    for stage in range(n_stages):
        depths.append(_count(weights, rf"{re.escape(prefix)}layers\.{stage}\.blocks\.(\d+)\."))
        n_heads.append(weights[f"{prefix}layers.{stage}.blocks.0.attn.relative_position_bias_table"].shape[1])
    return [f"encoder.width={width}", f"encoder.depths={depths}", f"encoder.n_heads={n_heads}"]


def bert_structure(weights: Mapping[str, Tensor], prefix: str) -> PretrainedConfig:
    """Structure of BERT from its weights below ``prefix``."""
    from transformers import BertConfig

    return BertConfig(pad_token_id=0, **_bert_sizes(weights, prefix))


def roberta_structure(weights: Mapping[str, Tensor], prefix: str) -> PretrainedConfig:
    """Structure of RoBERTa from its weights below ``prefix``."""
    from transformers import RobertaConfig

    return RobertaConfig(
        pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5, **_bert_sizes(weights, prefix)
    )


def gpt2_structure(weights: Mapping[str, Tensor], prefix: str) -> PretrainedConfig:
    """Structure of GPT-2 from its weights below ``prefix``."""
    from transformers import GPT2Config

    vocab_size, width = weights[f"{prefix}wte.weight"].shape
    n_layers = _count(weights, rf"{re.escape(prefix)}h\.(\d+)\.")
    return GPT2Config(
        vocab_size=vocab_size, n_embd=width, n_positions=weights[f"{prefix}wpe.weight"].shape[0], n_layer=n_layers,
        n_head=width // HEAD_DIM, bos_token_id=vocab_size - 1, eos_token_id=vocab_size - 1,
    )  # fmt: skip


def _bert_sizes(weights: Mapping[str, Tensor], prefix: str) -> dict[str, int]:
    vocab_size, hidden_size = weights[f"{prefix}embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": _count(weights, rf"{re.escape(prefix)}encoder\.layer\.(\d+)\."),
        "num_attention_heads": hidden_size // HEAD_DIM,
        "intermediate_size": weights[f"{prefix}encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": weights[f"{prefix}embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": weights[f"{prefix}embeddings.token_type_embeddings.weight"].shape[0],
    }


def _count(keys: Iterable[str], pattern: str) -> int:
    """One more than the largest number that the pattern finds."""
    return 1 + max((int(match[1]) for key in keys if (match := re.match(pattern, key))), default=-1)
