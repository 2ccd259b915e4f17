"""Projections give unit vectors, as the published formulas say."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from clapkit.config import load_config
from clapkit.errors import ConfigError
from clapkit.models.clap import CLAP
from clapkit.models.projections import UnitLength, build_projection

FEATURES = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["residual", "mlp", "linear"])
def test_unit_vectors_in_float32_even_from_bfloat16(name: str) -> None:
    projection = build_projection(name, 12, 8, 0.1).eval()
    with torch.autocast("cpu", torch.bfloat16):
        vectors = projection(FEATURES)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))


def test_the_published_formulas() -> None:
    mlp = build_projection("mlp", 12, 8, 0.0)
    expected = F.normalize(mlp.linear2(F.relu(mlp.linear1(FEATURES))), dim=1)
    torch.testing.assert_close(mlp(FEATURES), expected)
    residual = build_projection("residual", 12, 8, 0.0)
    first = residual.linear1(FEATURES)
    expected = F.normalize(residual.layer_norm(first + residual.linear2(F.gelu(first))), dim=1)
    torch.testing.assert_close(residual(FEATURES), expected)


def test_a_text_space_without_projection_must_have_its_size() -> None:
    config = load_config([], ["model.text_projection=none", "model.embed_dim=32", "encoder.name=cnn4"])
    assert isinstance(CLAP(config, 0, 32).text_projection, UnitLength)
    with pytest.raises(ConfigError, match="must be 48, not 32"):
        CLAP(config, 0, 48)


def test_a_linear_projection_is_one_matrix_and_no_projection_none() -> None:
    linear = build_projection("linear", 12, 8, 0.0)
    torch.testing.assert_close(linear(FEATURES), F.normalize(linear.linear1(FEATURES), dim=1))
    assert len(list(linear.parameters())) == 2
    torch.testing.assert_close(UnitLength()(FEATURES), F.normalize(FEATURES, dim=1))
    assert not list(UnitLength().parameters())


@pytest.mark.parametrize("name", ["residual", "mlp", "linear"])
def test_dropout_is_for_training_only(name: str) -> None:
    torch.manual_seed(0)
    projection = build_projection(name, 12, 8, 0.5)
    assert not torch.equal(projection(FEATURES), projection(FEATURES))
    projection.eval()
    assert torch.equal(projection(FEATURES), projection(FEATURES))
