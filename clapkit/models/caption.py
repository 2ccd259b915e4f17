"""Captions: a mapper turns a sound's vector into a prefix, and GPT-2 writes on from there.

Source: Mokady et al. 2021, ClipCap; Elizalde et al. 2024 (clapcap).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from clapkit.errors import CheckpointError, ConfigError, TextModelError
from clapkit.models.prefix_mapper import PrefixMapper
from clapkit.models.weights import load_strictly

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

END = "<|endoftext|>"
"""What stands behind every caption, in text; a caption ends with the first of its tokens."""
MSCLAP_END = " <|endoftext|>"
"""Of msclap: GPT-2 reads its space as a token of its own, with which a caption of clapcap ends."""
MOST_TOKENS = 67
CONFIG_FILE, WEIGHTS_FILE, DECODER_FOLDER = "config.json", "model.safetensors", "decoder"
TIED_KEY, TYING_KEY = "decoder.lm_head.weight", "decoder.transformer.wte.weight"
"""GPT-2 reads and writes with one matrix, which is stored once."""
IGNORED = -100
"""Marks tokens that no loss counts."""


class Captioner(nn.Module):
    """A mapper and a frozen GPT-2.

    Args:
        mapper: from vectors to prefixes.
        decoder: writes on from a prefix.
        tokenizer: GPT-2's, or its name or folder, found when the first caption is asked for.
        end: text that stands behind every caption.
        most_tokens: of one caption, its end included; fewer where the decoder has no room for them.

    Raises:
        ConfigError: mapper and decoder do not fit together.
    """

    def __init__(
        self, mapper: PrefixMapper, decoder: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase | str, *,
        end: str = END, most_tokens: int = MOST_TOKENS,
    ) -> None:  # fmt: skip
        super().__init__()
        width, prefix_length = mapper.sizes["width"], mapper.sizes["prefix_length"]
        sizes = decoder.config
        if width != sizes.n_embd or prefix_length >= sizes.n_positions:
            raise ConfigError(
                f"a prefix of {prefix_length} vectors of {width} numbers does not fit a decoder of {sizes.n_positions} "
                f"positions of {sizes.n_embd}; choose a smaller caption.prefix_length, or another decoder."
            )
        self.mapper = mapper
        self.decoder = decoder.requires_grad_(False)
        self.end = end
        self.most_tokens = min(most_tokens, sizes.n_positions - prefix_length)
        self.use_tokenizer(tokenizer)

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase | str) -> None:
        """Write with this tokenizer, or with the one of this name or folder.

        Raises:
            TextModelError: it belongs to another decoder.
        """
        self._tokenizer = tokenizer if isinstance(tokenizer, str) else self._checked(tokenizer)

    @property
    def decoder_learns(self) -> bool:
        """Whether the decoder starts from scratch, and is trained with the mapper."""
        return any(parameter.requires_grad for parameter in self.decoder.parameters())

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What turns tokens into words.

        Raises:
            TextModelError: it is not on this machine, or belongs to another decoder.
        """
        if isinstance(self._tokenizer, str):
            from clapkit.models.tokenizer import load_tokenizer

            self._tokenizer = self._checked(load_tokenizer(self._tokenizer))
        return self._tokenizer

    def _checked(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        if len(tokenizer) > (n_known := self.decoder.config.vocab_size):
            raise TextModelError(
                f"{tokenizer.name_or_path or 'the tokenizer'}: has {len(tokenizer)} tokens, but this decoder knows "
                f"{n_known}; give the tokenizer that belongs to it (--tokenizer FOLDER)."
            )
        return tokenizer

    @property
    def end_token(self) -> int:
        """The token at which a caption ends."""
        return self.tokenizer.encode(self.end, add_special_tokens=False)[0]

    @torch.inference_mode()
    def generate(self, vectors: Tensor, *, n_beams: int = 5, most_tokens: int | None = None) -> list[list[int]]:
        """Write captions as tokens, without the one that ends them.

        Args:
            vectors: ``(batch, embed_dim)`` of unit length.
            n_beams: sequences followed at once; 1 takes the likeliest token each time.
            most_tokens: of one caption; None for the captioner's own limit.
        """
        prefix = self.mapper(vectors)
        end = self.end_token
        attended = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
        most_tokens = min(most_tokens or self.most_tokens, self.most_tokens)
        rows = self.decoder.generate(
            inputs_embeds=prefix, attention_mask=attended, max_new_tokens=most_tokens, num_beams=n_beams,
            do_sample=False, eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        return [row[: row.index(end)] if end in row else row for row in rows.tolist()]

    def caption(self, vectors: Tensor, *, n_beams: int = 5, most_tokens: int | None = None) -> list[str]:
        """Write one sentence for each vector; as :meth:`generate`."""
        rows = self.generate(vectors, n_beams=n_beams, most_tokens=most_tokens)
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip().capitalize() for row in rows]

    def loss(self, vectors: Tensor, captions: Sequence[str]) -> Tensor:
        """As :meth:`token_loss`, of captions in words."""
        return self.token_loss(vectors, *self.tokenize(captions))

    def token_loss(self, vectors: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of each caption's tokens and of its end, given the sound and the tokens before.

        Args:
            vectors: ``(batch, embed_dim)`` of unit length.
            ids: ``(batch, n_tokens)`` int64, as :meth:`tokenize` gives them.
            mask: ``(batch, n_tokens)``, 0 for padding.

        Returns:
            A scalar, the mean over tokens; neither prefix nor padding counts.
        """
        ids, mask = ids.to(vectors.device), mask.to(vectors.device)
        prefix = self.mapper(vectors)
        inputs = torch.cat([prefix, self.decoder.transformer.wte(ids)], dim=1)
        attended = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
        n_tokens = ids.shape[1]
        output = self.decoder(inputs_embeds=inputs, attention_mask=attended, logits_to_keep=n_tokens + 1)
        predicted = output.logits[:, :-1]  # each token is predicted from those before it
        targets = ids.masked_fill(mask == 0, IGNORED)
        return F.cross_entropy(predicted.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions with their end → ids and mask, both ``(n_captions, n_tokens)`` int64; padding is behind."""
        kept = self.most_tokens
        rows = [self.tokenizer.encode(text + self.end, add_special_tokens=False)[:kept] for text in captions]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        n_tokens = torch.tensor([len(row) for row in rows])
        return ids, (torch.arange(ids.shape[1]) < n_tokens[:, None]).long()


def save_captioner(captioner: Captioner, folder: Path) -> None:
    """Write mapper, decoder and, where it is here, tokenizer into a new folder."""
    folder.mkdir()
    name = captioner._tokenizer
    name = name if isinstance(name, str) and not Path(name).is_dir() else None  # a folder may go, or move
    document = {
        "mapper": captioner.mapper.sizes, "tokenizer": name, "end": captioner.end, "most_tokens": captioner.most_tokens
    }  # fmt: skip
    (folder / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    captioner.decoder.config.save_pretrained(folder / DECODER_FOLDER)
    if name is None:
        captioner.tokenizer.save_pretrained(folder / DECODER_FOLDER)
    weights = {key: value.cpu().contiguous() for key, value in captioner.state_dict().items()}
    del weights[TIED_KEY]  # the same tensor as the token vectors
    save_file(weights, folder / WEIGHTS_FILE)


def load_captioner(folder: Path) -> Captioner:
    """Read a folder written by :func:`save_captioner`.

    Raises:
        CheckpointError: damaged, or a key is missing or unexpected.
    """
    from transformers import AutoConfig, GPT2LMHeadModel

    advice = "restore the folder as it was saved"
    try:
        document = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        structure = AutoConfig.from_pretrained(folder / DECODER_FOLDER, local_files_only=True)
        weights = load_file(folder / WEIGHTS_FILE)
        decoder, tokenizer = GPT2LMHeadModel(structure), document["tokenizer"] or str(folder / DECODER_FOLDER)
        rest = {key: document[key] for key in ("end", "most_tokens")}
        captioner = Captioner(PrefixMapper(**document["mapper"]), decoder, tokenizer, **rest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged ({_reason(error)}); {advice}.") from None
    if TYING_KEY in weights:
        weights[TIED_KEY] = weights[TYING_KEY]
    load_strictly(captioner, weights, str(folder / WEIGHTS_FILE), advice)
    return captioner.eval()


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return f"it lacks {text}" if isinstance(error, KeyError) else text
