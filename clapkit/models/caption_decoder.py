"""The GPT-2 that writes captions: a pretrained one, which stays as it is, or a small new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from transformers.utils.logging import disable_progress_bar

from clapkit.config import NEW_DECODER, CaptionConfig
from clapkit.errors import TextModelError
from clapkit.models.caption import END, Captioner
from clapkit.models.hub import snapshot
from clapkit.models.prefix_mapper import PrefixMapper
from clapkit.models.tokenizer import has_tokenizer, load_tokenizer, train_byte_bpe

WEIGHTS_FILE = "model.safetensors"


def new_captioner(config: CaptionConfig, embed_dim: int, captions: Sequence[str]) -> Captioner:
    """A new mapper before the decoder that the config names.

    Args:
        config: sizes; ``decoder`` is a Hub id, a folder, or ``gpt2-small`` for a new one, which learns too.
        embed_dim: size of a sound's vector.
        captions: a new decoder's tokens are learned from these.

    Raises:
        TextModelError: the decoder is not on this machine nor on the Hub, or is no GPT-2.
        ConfigError: sizes that do not fit together.
    """
    is_new = config.decoder == NEW_DECODER
    if is_new:
        tokenizer = train_byte_bpe([text + END for text in captions], config.vocab_size, config.most_tokens)
        decoder = GPT2LMHeadModel(_small_structure(config, len(tokenizer)))
    else:
        decoder, tokenizer = load_decoder(config.decoder or "gpt2")
    mapper = PrefixMapper(
        embed_dim, decoder.config.n_embd, prefix_length=config.prefix_length, clip_length=config.clip_length,
        n_layers=config.n_layers, n_heads=config.n_heads,
    )  # fmt: skip
    captioner = Captioner(mapper, decoder, tokenizer, most_tokens=config.most_tokens)
    captioner.decoder.requires_grad_(is_new)
    return captioner.eval()


def load_decoder(name: str) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:
    """A pretrained GPT-2 and its tokenizer.

    Raises:
        TextModelError: not on this machine nor on the Hub, no GPT-2, or unreadable.
    """
    folder = Path(name) if Path(name).is_dir() else snapshot(name, ["*.json", "*.txt", WEIGHTS_FILE], _is_whole)
    if folder is None:
        raise TextModelError(
            f"decoder {name}: not on this machine and the Hub cannot be reached; give a folder that holds it, connect "
            f"to the Hub once, or train a small new one: --decoder {NEW_DECODER}."
        )
    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise TextModelError(f"{folder}: not a readable GPT-2 ({str(error).splitlines()[0]}).") from None
    if kind != "gpt2":
        raise TextModelError(f"{folder}: holds a model of the kind {kind}; captions are written by a GPT-2.")
    disable_progress_bar()  # clapkit shows its own bars
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what is missing is reported below
    try:
        decoder, report = GPT2LMHeadModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TextModelError(f"{folder}: its weights cannot be read ({str(error).splitlines()[0]}).") from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    if missing := sorted(report["missing_keys"]):
        raise TextModelError(f"{folder}: its weights lack {len(missing)} key(s) such as {missing[0]}; save it anew.")
    return decoder, load_tokenizer(str(folder))


def _is_whole(folder: Path) -> bool:
    return (folder / WEIGHTS_FILE).is_file() and has_tokenizer(folder)


def _small_structure(config: CaptionConfig, n_tokens: int) -> GPT2Config:
    """Without dropout: of so small a model nothing has to be held back."""
    return GPT2Config(
        vocab_size=n_tokens, n_embd=config.hidden_size, n_layer=config.decoder_layers, n_head=config.n_heads,
        n_positions=config.prefix_length + config.most_tokens, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
