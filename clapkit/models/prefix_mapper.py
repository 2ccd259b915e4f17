"""From a sound's vector to the prefix of its caption.

Source: Mokady et al. 2021, ClipCap, its transformer mapper; parameter names are those of clapcap's published file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clapkit.errors import ConfigError


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

    Raises:
        ConfigError: the heads do not divide the width.
    """

    def __init__(
        self, embed_dim: int, width: int, *, prefix_length: int = 40, clip_length: int = 40, n_layers: int = 8,
        n_heads: int = 8, mlp_ratio: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % n_heads:
            raise ConfigError(
                f"caption.n_heads={n_heads} does not divide the {width} numbers of a decoder's token vector; "
                "choose another number of heads."
            )
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
