"""Files of published layouts with filled weights, and what the original packages answer with them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from clapkit.model import AudioTextModel, load

sys.path.append(str(Path(__file__).parent))  # make_references.py, which is run on its own, imports the same modules

from filling import REFERENCES, checksum, fill, read_layouts
from small_tokenizers import save_bert_tokenizer, save_gpt2_tokenizer, save_roberta_tokenizer

TOKENIZERS = {
    "msclap-2022": save_bert_tokenizer,
    "msclap-2023": save_gpt2_tokenizer,
    "clapcap": save_gpt2_tokenizer,
    "laion": save_roberta_tokenizer,
}
"""By the beginning of a layout's name."""


@dataclass
class Original:
    """One original.

    Attributes:
        name: of its layout.
        model: clapkit's, from a file with the same weights.
        answers: what the original answered.
    """

    name: str
    model: AudioTextModel
    answers: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def references() -> dict[str, dict[str, np.ndarray]]:
    """By model, then by kind of answer; and the constants."""
    models: dict[str, dict[str, np.ndarray]] = {}
    with np.load(REFERENCES) as file:
        for name in file.files:
            model, _, kind = name.partition("/")
            models.setdefault(model, {})[kind] = file[name]
    return models


@pytest.fixture(scope="session")
def write_published(references) -> Callable[[str, Path], Path]:
    """``write_published(name, folder)`` writes the file as its publisher lays it out, and returns its path."""

    def write(name: str, folder: Path) -> Path:
        known = references[name]
        statistics = {key.removeprefix("statistics/"): known[key] for key in known if key.startswith("statistics/")}
        state = fill(read_layouts()[name], references["constants"], statistics)
        assert checksum(state) == known["checksum"], "this NumPy draws other numbers: run make_references.py anew"
        weights = {key: torch.from_numpy(value) for key, value in state.items()}
        if name.startswith("msclap-2023"):  # everything in it was saved as float32
            weights = {key: value.float() for key, value in weights.items()}
        if name.startswith("laion"):  # the larger one as saved without DistributedDataParallel
            prefix = "" if name == "laion-larger" else "module."
            document = {"epoch": 15, "name": name, "state_dict": {prefix + key: weights[key] for key in weights}}
        else:
            document = {"model": weights}
        file = folder / f"{name}{'.pt' if name.startswith('laion') else '.pth'}"
        torch.save(document, file)
        return file

    return write


@pytest.fixture(scope="module")
def original(request, write_published, references, tmp_path_factory) -> Original:
    """The model that the test is parametrized with; its file does not stay on the disk."""
    folder = tmp_path_factory.mktemp(request.param)
    file = write_published(request.param, folder)
    family = next(family for family in TOKENIZERS if request.param.startswith(family))
    TOKENIZERS[family](folder / "tokenizer")
    model = load(file, device="cpu", tokenizer=folder / "tokenizer")
    file.unlink()
    return Original(request.param, model, references[request.param])
