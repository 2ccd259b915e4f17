"""Other people's files: plain weights are read, everything else is one line, and no code of theirs runs."""

from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
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


def test_files_of_older_torch_are_read(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    read = read_weights(tmp_path / "a.pth")
    torch.testing.assert_close(read["tower.weight"], WEIGHTS["tower.weight"])


# As NumPy 1 named its functions; the published files are older than NumPy 2.
def test_numbers_of_numpy_under_their_old_names_are_let_in(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "best": np.float64(0.9)}, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            old.writestr(name, content)
    assert read_weights(tmp_path / "old.pt").keys() == WEIGHTS.keys()


# Reading them breaks in other places than reading newer files: struct.error, IndexError, AssertionError.
@pytest.mark.parametrize("part", [0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
def test_a_truncated_file_of_older_torch(part: float, tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: int(part * len(content))])
    assert "truncated" in refusal(tmp_path / "a.pth")


def test_a_damaged_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for zipped in (True, False):
        torch.save({"model": WEIGHTS}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        content = (tmp_path / "a.pth").read_bytes()
        for _ in range(100):
            spoilt = np.frombuffer(content, np.uint8).copy()
            spoilt[generator.integers(len(spoilt), size=30)] = generator.integers(256, size=30)
            (tmp_path / "b.pth").write_bytes(spoilt.tobytes())
            with contextlib.suppress(CheckpointError):  # numbers alone may have changed
                read_weights(tmp_path / "b.pth")


@pytest.mark.parametrize("kind", ["module", "script", "protocol 5"])
def test_more_than_plain_weights_is_said_to_be_that(kind: str, tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    if kind == "script":
        torch.jit.trace(module, torch.ones(1, 2)).save(str(tmp_path / "a.pt"))
    else:
        torch.save({"model": module}, tmp_path / "a.pt", pickle_protocol=5 if kind == "protocol 5" else 2)
    assert "could run code when opened" in refusal(tmp_path / "a.pt")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path)


def test_the_command_line_says_it_in_one_line(cli: Callable, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"model": WEIGHTS, "x": Harmful(mark)}, tmp_path / "code.pth")
    torch.save({"model": WEIGHTS}, tmp_path / "other.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "other.pth").read_bytes()[:300])
    (tmp_path / "empty.pt").touch()
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 9)
    torch.save([1, 2], tmp_path / "list.pt")
    words = {
        "code.pth": "could run code", "other.pth": "of another architecture", "cut.pth": "truncated",
        "empty.pt": "is empty", "junk.safetensors": "not safetensors", "list.pt": "no named weights",
        "nowhere.pt": "no such file",
    }  # fmt: skip
    for name, expected in words.items():
        for command in (("convert", tmp_path / name, tmp_path / "mine"), ("info", tmp_path / name)):
            result = cli("--quiet", *command)
            assert result.code == 2
            assert result.out == ""
            assert result.err.startswith(f"clapkit: {tmp_path / name}: ")
            assert expected in result.err
            assert result.err.count("\n") == 1
    assert not mark.exists()
    assert not (tmp_path / "mine").exists()


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    torch.save(WEIGHTS | {"module.tower.bias": torch.zeros(2)}, tmp_path / "a.pt")
    assert "1 key(s) with and without module." in refusal(tmp_path / "a.pt")
