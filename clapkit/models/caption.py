"""Captions: a mapper turns a sound's vector into a prefix, and GPT-2 writes on from there.

Source: Mokady et al. 2021, ClipCap; Elizalde et al. 2024 (clapcap). Parameter names are those of the published file.
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

from clapkit.errors import CheckpointError
from clapkit.models.weights import load_strictly

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

END = " <|endoftext|>"
"""What stands behind every caption; GPT-2 reads its space as a token of its own, with which a caption ends."""
MOST_TOKENS = 67
CONFIG_FILE, WEIGHTS_FILE, DECODER_FOLDER = "config.json", "model.safetensors", "decoder"
IGNORED = -100
"""Marks tokens that no loss counts."""


class PrefixAttention(nn.Module):
    """Self-attention with keys and values in one matrix, and no bias but at the end."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(batch, n_tokens, width)`` → the same shape."""
        batch, n_tokens, width = tokens.shape
        parts = (self.to_queries(tokens), *self.to_keys_values(tokens).chunk(2, dim=-1))
        heads = (part.view(batch, n_tokens, self.n_heads, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(*heads)  # (batch, n_heads, n_tokens, head_dim)
        return self.project(mixed.transpose(1, 2).reshape(batch, n_tokens, width))


class PrefixLayer(nn.Module):
    """Attention and two dense layers, each behind a LayerNorm and added to what came in."""

    def __init__(self, width: int, n_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = PrefixAttention(width, n_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, mlp_ratio * width), "fc2": nn.Linear(mlp_ratio * width, width)}
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """``(batch, n_tokens, width)`` → the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp["fc2"](F.relu(self.mlp["fc1"](self.norm2(tokens))))


class PrefixMapper(nn.Module):
    """A vector becomes tokens; what a transformer makes of the constant tokens behind them is the prefix.

    Args:
        embed_dim: size of a sound's vector.
        width: size of the decoder's token vectors.
        prefix_length: tokens of the prefix.
        clip_length: tokens that the vector becomes.
        n_layers: layers of the transformer.
        n_heads: attention heads.
        mlp_ratio: size of the hidden dense layer, in widths.
    """

    def __init__(
        self, embed_dim: int, width: int, *, prefix_length: int = 40, clip_length: int = 40, n_layers: int = 8,
        n_heads: int = 8, mlp_ratio: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.sizes = {
            "embed_dim": embed_dim, "width": width, "prefix_length": prefix_length, "clip_length": clip_length,
            "n_layers": n_layers, "n_heads": n_heads, "mlp_ratio": mlp_ratio,
        }  # fmt: skip
        layers = nn.ModuleList(PrefixLayer(width, n_heads, mlp_ratio) for _ in range(n_layers))
        self.transformer = nn.ModuleDict({"layers": layers})
        self.linear = nn.Linear(embed_dim, clip_length * width)
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, width))

    def forward(self, vectors: Tensor) -> Tensor:
        """``(batch, embed_dim)`` of unit length → ``(batch, prefix_length, width)``."""
        width = self.prefix_const.shape[1]
        heard = self.linear(vectors).view(len(vectors), -1, width)
        tokens = torch.cat([heard, self.prefix_const.expand(len(vectors), -1, -1)], dim=1)
        for layer in self.transformer["layers"]:
            tokens = layer(tokens)
        return tokens[:, heard.shape[1] :]


class Captioner(nn.Module):
    """A mapper and a frozen GPT-2.

    Args:
        mapper: from vectors to prefixes.
        decoder: writes on from a prefix.
        tokenizer: GPT-2's, or its name or folder, found when the first caption is asked for.
    """

    def __init__(
        self, mapper: PrefixMapper, decoder: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase | str
    ) -> None:
        super().__init__()
        self.mapper = mapper
        self.decoder = decoder.requires_grad_(False)
        self.use_tokenizer(tokenizer)

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase | str) -> None:
        """Write with this tokenizer, or with the one of this name or folder."""
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """What turns tokens into words.

        Raises:
            TextModelError: it is not on this machine.
        """
        if isinstance(self._tokenizer, str):
            from clapkit.models.tokenizer import load_tokenizer

            self._tokenizer = load_tokenizer(self._tokenizer)
        return self._tokenizer

    @property
    def end_token(self) -> int:
        """The token at which a caption ends: the first of :data:`END`, as msclap has it."""
        return self.tokenizer.encode(END, add_special_tokens=False)[0]

    @torch.inference_mode()
    def generate(self, vectors: Tensor, *, n_beams: int = 5, most_tokens: int = MOST_TOKENS) -> list[list[int]]:
        """Write captions as tokens, without the one that ends them.

        Args:
            vectors: ``(batch, embed_dim)`` of unit length.
            n_beams: sequences followed at once; 1 takes the likeliest token each time.
            most_tokens: of one caption.
        """
        prefix = self.mapper(vectors)
        end = self.end_token
        rows = self.decoder.generate(
            inputs_embeds=prefix, attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device),
            max_new_tokens=most_tokens, num_beams=n_beams, do_sample=False, eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        return [row[: row.index(end)] if end in row else row for row in rows.tolist()]

    def caption(self, vectors: Tensor, *, n_beams: int = 5, most_tokens: int = MOST_TOKENS) -> list[str]:
        """Write one sentence for each vector; as :meth:`generate`."""
        rows = self.generate(vectors, n_beams=n_beams, most_tokens=most_tokens)
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip().capitalize() for row in rows]

    def loss(self, vectors: Tensor, captions: Sequence[str]) -> Tensor:
        """Cross-entropy of each caption's tokens and of its end, given the sound and the tokens before.

        Args:
            vectors: ``(batch, embed_dim)`` of unit length.
            captions: one for each.

        Returns:
            A scalar, the mean over tokens; neither prefix nor padding counts.
        """
        ids, mask = self.tokenize(captions)
        ids, mask = ids.to(vectors.device), mask.to(vectors.device)
        prefix = self.mapper(vectors)
        inputs = torch.cat([prefix, self.decoder.transformer.wte(ids)], dim=1)
        attended = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
        logits = self.decoder(inputs_embeds=inputs, attention_mask=attended).logits
        predicted = logits[:, prefix.shape[1] - 1 : -1]  # each token is predicted from those before it
        targets = ids.masked_fill(mask == 0, IGNORED)
        return F.cross_entropy(predicted.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions with their end → ids and mask, both ``(n_captions, n_tokens)`` int64; padding is behind."""
        rows = [self.tokenizer.encode(text + END, add_special_tokens=False)[:MOST_TOKENS] for text in captions]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        n_tokens = torch.tensor([len(row) for row in rows])
        return ids, (torch.arange(ids.shape[1]) < n_tokens[:, None]).long()


def save_captioner(captioner: Captioner, folder: Path) -> None:
    """Write mapper, decoder and, where it is here, tokenizer into a new folder."""
    folder.mkdir()
    name = captioner._tokenizer if isinstance(captioner._tokenizer, str) else None
    document = {"mapper": captioner.mapper.sizes, "tokenizer": name}
    (folder / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    captioner.decoder.config.save_pretrained(folder / DECODER_FOLDER)
    if name is None:
        captioner.tokenizer.save_pretrained(folder / DECODER_FOLDER)
    weights = {key: value.cpu().contiguous() for key, value in captioner.state_dict().items()}
    del weights[TIED_KEY]  # the same tensor as the token vectors
    save_file(weights, folder / WEIGHTS_FILE)


TIED_KEY = "decoder.lm_head.weight"


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
        mapper = PrefixMapper(**document["mapper"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged ({str(error).splitlines()[0]}); {advice}.") from None
    captioner = Captioner(mapper, GPT2LMHeadModel(structure), document["tokenizer"] or str(folder / DECODER_FOLDER))
    weights[TIED_KEY] = weights.get("decoder.transformer.wte.weight")
    load_strictly(captioner, {key: value for key, value in weights.items() if value is not None}, str(folder), advice)
    return captioner.eval()
