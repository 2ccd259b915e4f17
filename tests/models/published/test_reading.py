"""Other people's files: plain weights are read, everything else is one line, and no code of theirs runs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clapkit.errors import CheckpointError
from clapkit.models.published.reading import read_weights

WEIGHTS = {"tower.weight": torch.arange(6.0).reshape(2, 3), "tower.bias": torch.ones(2)}


class Harmful:
    """Leaves a mark when a pickle of it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def refusal(file: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_weights(file)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w}, lambda w: {"state_dict": w, "epoch": 3}])
def test_weights_are_found_where_msclap_and_laion_put_them(wrap: Callable[[dict], dict], tmp_path: Path) -> None:
    torch.save(wrap({f"module.{key}": value for key, value in WEIGHTS.items()}), tmp_path / "a.pt")
    read = read_weights(tmp_path / "a.pt")
    assert read.keys() == WEIGHTS.keys()
    torch.testing.assert_close(read["tower.weight"], WEIGHTS["tower.weight"])


def test_numbers_of_numpy_beside_the_weights_are_let_in(tmp_path: Path) -> None:
    extra = {"best": np.float64(0.9), "loss": np.float32(2), "epoch": np.int64(4)}
    torch.save({"state_dict": WEIGHTS, **extra}, tmp_path / "a.pt")
    assert read_weights(tmp_path / "a.pt").keys() == WEIGHTS.keys()


def test_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    assert read_weights(tmp_path / "a.safetensors").keys() == WEIGHTS.keys()
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(content[:-4])
    assert "truncated" in refusal(tmp_path / "b.safetensors")


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_with_code_stays_closed(plain: bool, tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "a.pth"
    document = {"model": WEIGHTS, "x": Harmful(mark)}
    if plain:
        file.write_bytes(pickle.dumps(document))
    else:
        torch.save(document, file)
    assert "run code" in refusal(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"not a model at all" * 99, "not a PyTorch file"), (b"PK\x03\x04" + b"x" * 500, "truncated")],
)
def test_what_is_no_weights_file(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    assert words in refusal(tmp_path / "a.pth")


def test_a_truncated_file(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS}, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    assert "truncated" in refusal(tmp_path / "cut.pth")


@pytest.mark.parametrize("document", [[1, 2], {"model": {}}, {1: torch.ones(2)}, torch.ones(3)])
def test_a_file_without_named_weights(document: object, tmp_path: Path) -> None:
    torch.save(document, tmp_path / "a.pt")
    assert "no named weights" in refusal(tmp_path / "a.pt")


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "a.pth")
