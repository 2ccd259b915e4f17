"""A text tower: texts in, one vector per text out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from clapkit.errors import TextModelError
from clapkit.models.tokenizer import load_tokenizer

POOLING_FOLDER = "1_Pooling"
"""How sentence-transformers says that a model is pooled by the mean."""
COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Towers whose first position is the one behind the padding token's number."""
MSCLAP_SUFFIX, MSCLAP_PADDING = " <|endoftext|>", "!"
"""What msclap-2023 appends to a text, and the token that it takes for padding."""


class TextEncoder(nn.Module):
    """A transformer, its tokenizer, and the pooling that fits it.

    Args:
        transformer: a text model of transformers.
        tokenizer: reads the texts, padding on the right; or its name or folder, found when the first text comes.
        pooling: ``cls`` first token; ``mean`` over real tokens; ``last`` real token, behind which the end-of-text mark
            is appended; ``pooler`` the transformer's own dense layer over the first token; ``projection`` CLIP's;
            ``msclap_gpt2`` as msclap-2023 reads GPT-2: the token before the first that counts as padding, where every
            ``!`` counts as padding.
        context_length: tokens kept of one text.
    """

    def __init__(
        self, transformer: nn.Module, tokenizer: PreTrainedTokenizerBase | str, pooling: str, context_length: int
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling
        structure = transformer.config
        n_reserved = structure.pad_token_id + 1 if structure.model_type in COUNTED_FROM_PADDING else 0
        self.context_length = min(context_length, structure.max_position_embeddings - n_reserved)
        self.padding_id = 0  # what "!" is in GPT-2; see msclap_gpt2
        self.text_dim: int = structure.projection_dim if pooling == "projection" else structure.hidden_size
        self.use_tokenizer(tokenizer)

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase | str) -> None:
        """Read texts with this tokenizer, or with the one of this name or folder."""
        self._tokenizer = tokenizer if isinstance(tokenizer, str) else self._prepared(tokenizer)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What reads the texts.

        Raises:
            TextModelError: it is not on this machine, or belongs to another tower.
        """
        if isinstance(self._tokenizer, str):
            self._tokenizer = self._prepared(load_tokenizer(self._tokenizer))
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether the tokenizer is here or in a folder, or is still to be found."""
        return not isinstance(self._tokenizer, str) or Path(self._tokenizer).is_dir()

    def _prepared(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        tokenizer.padding_side = "right"
        if self.pooling == "msclap_gpt2":
            tokenizer.add_special_tokens({"pad_token": MSCLAP_PADDING})  # so it is cut out before pairs are merged
            self.padding_id = tokenizer.pad_token_id
        elif tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if self.pooling == "last" and tokenizer.eos_token is None:
            raise TextModelError("text.pooling=last needs a tokenizer with an end-of-text mark; use cls or mean.")
        n_known = self.transformer.config.vocab_size
        if len(tokenizer) > n_known:
            raise TextModelError(
                f"{tokenizer.name_or_path or 'the tokenizer'}: has {len(tokenizer)} tokens, but this text tower knows "
                f"{n_known}; give the tokenizer that belongs to it."
            )
        return tokenizer

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts → ``input_ids`` and ``attention_mask``, both ``(n_texts, n_tokens)`` int64."""
        if self.pooling in ("last", "msclap_gpt2"):
            tokens = self.tokenizer.pad({"input_ids": [self._with_end(text) for text in texts]}, return_tensors="pt")
        else:
            tokens = self.tokenizer(
                list(texts), padding=True, truncation=True, max_length=self.context_length, return_tensors="pt"
            )
        return {key: tokens[key] for key in ("input_ids", "attention_mask")}

    def _with_end(self, text: str) -> list[int]:
        """A text's tokens for GPT-2, cut so that its end stays."""
        read = partial(self.tokenizer.encode, add_special_tokens=False)
        if self.pooling == "msclap_gpt2":
            ids, n_end = read(text + MSCLAP_SUFFIX), len(read(MSCLAP_SUFFIX))
        else:
            ids, n_end = [*read(text), self.tokenizer.eos_token_id], 1
        if len(ids) <= self.context_length:
            return ids
        return ids[: self.context_length - n_end] + ids[-n_end:]

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Texts → ``(n_texts, text_dim)`` float32."""
        tokens = self.tokenize(texts)
        device = self.transformer.device
        return self.encode_tokens(tokens["input_ids"].to(device), tokens["attention_mask"].to(device))

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens, as :meth:`tokenize` gives them → ``(n_texts, text_dim)`` float32."""
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
        if self.pooling == "pooler":
            return output.pooler_output
        if self.pooling == "projection":
            return output.text_embeds
        hidden = output.last_hidden_state  # (n_texts, n_tokens, text_dim)
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "mean":
            return (hidden * attention_mask[..., None]).sum(dim=1) / attention_mask.sum(dim=1, keepdim=True)
        counted = attention_mask if self.pooling == "last" else input_ids != self.padding_id
        last = counted.sum(dim=1) - 1
        rows = torch.arange(hidden.shape[0], device=hidden.device)  # len(hidden) would freeze the batch of an export
        return hidden[rows, last]

    def save_structure(self, folder: Path) -> None:
        """Write the transformer's config, the tokenizer if it is here, and mean pooling as its mark."""
        self.transformer.config.save_pretrained(folder)
        if self.has_tokenizer:
            self.tokenizer.save_pretrained(folder)
        if self.pooling == "mean":
            (folder / POOLING_FOLDER).mkdir()
            (folder / POOLING_FOLDER / "config.json").write_text(
                '{"pooling_mode_mean_tokens": true}\n', encoding="utf-8"
            )
