"""From a tower's vector to the shared space: the heads that published CLAPs use; unit length is taken in float32."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualProjection(nn.Module):
    """A linear map with a residual two-layer correction and a LayerNorm.

    Source: Elizalde et al. 2023, CLAP: Linear → GELU → Linear → Dropout, added to the first map, normalised.
    """

    def __init__(self, n_in: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(n_in, embed_dim, bias=False)
        self.linear2 = nn.Linear(embed_dim, embed_dim, bias=False)
        self.layer_norm = nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, n_in)`` → ``(batch, embed_dim)`` of unit length."""
        first = self.linear1(features)
        return F.normalize(self.layer_norm(first + self.dropout(self.linear2(F.gelu(first)))).float(), dim=-1)


class MlpProjection(nn.Module):
    """Two linear maps with a ReLU between them.

    Source: Wu et al. 2023, LAION-CLAP.
    """

    def __init__(self, n_in: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(n_in, embed_dim)
        self.linear2 = nn.Linear(embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, n_in)`` → ``(batch, embed_dim)`` of unit length."""
        return F.normalize(self.linear2(self.dropout(F.relu(self.linear1(features)))).float(), dim=-1)


class LinearProjection(nn.Module):
    """One linear map, as from Wav2CLIP's ResNet to the space of CLIP."""

    def __init__(self, n_in: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(n_in, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, n_in)`` → ``(batch, embed_dim)`` of unit length."""
        return F.normalize(self.linear1(self.dropout(features)).float(), dim=-1)


class UnitLength(nn.Module):
    """No projection: the tower's vectors are the shared space."""

    def forward(self, features: Tensor) -> Tensor:
        """``(batch, embed_dim)`` → the same at unit length."""
        return F.normalize(features.float(), dim=-1)


def build_projection(name: str, n_in: int, embed_dim: int, dropout: float) -> nn.Module:
    """The projection that ``model.projection`` names."""
    kinds = {"residual": ResidualProjection, "mlp": MlpProjection, "linear": LinearProjection}
    return kinds[name](n_in, embed_dim, dropout)
