"""Reading other people's weights: safetensors, or pickles of which nothing but tensors and numbers is let in."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clapkit.errors import CheckpointError

INNER_KEYS = ("model", "state_dict")
"""Where msclap and LAION put the weights beside epoch and optimizer."""
PICKLE_MARK, ZIP_MARK = b"\x80", b"PK"
UNSAFE = "unsupported (global|class)|unrecognized function|can only (create|build)"
"""How torch says that a pickle names more than tensors and numbers."""
NOT_PLAIN = "unsupported operand|cannot use"
"""How it says that a pickle is of a newer protocol, or a TorchScript archive."""
NUMPY_SCALARS = [
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    np._core.multiarray.scalar,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)),
]
"""What LAION's pickles hold beside tensors: figures of the training, as plain numbers of NumPy."""


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a weights file into a flat dictionary of tensors, on the CPU.

    Args:
        file: ``.safetensors``, or a PyTorch pickle (``.pth``, ``.pt``, ``.bin``).

    Raises:
        CheckpointError: not there, truncated, a pickle that would run code, or no weights inside.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file; check the path.")
    if file.stat().st_size == 0:
        raise CheckpointError(f"{file}: is empty (0 bytes); get it again.")
    document: Any = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    for key in INNER_KEYS:
        if isinstance(document, dict) and isinstance(document.get(key), dict):
            document = document[key]
    weights = (
        {key: value for key, value in document.items() if isinstance(value, Tensor)} if _is_named(document) else {}
    )
    if not weights:
        raise CheckpointError(f"{file}: holds no named weights, so it is not a checkpoint of a model.")
    plain = {key.removeprefix("module."): value for key, value in weights.items()}
    if len(plain) < len(weights):
        raise CheckpointError(
            f"{file}: holds {len(weights) - len(plain)} key(s) with and without module.; get it again."
        )
    return plain


def _is_named(document: Any) -> bool:
    return isinstance(document, dict) and all(isinstance(key, str) for key in document)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: truncated or not safetensors ({error}); get it again.") from None


def _read_pickle(file: Path) -> Any:
    with file.open("rb") as stream:
        start = stream.read(2)
    try:
        if start == ZIP_MARK and not zipfile.is_zipfile(file):
            raise CheckpointError(f"{file}: truncated, the end of the archive is missing; get it again.")
        with warnings.catch_warnings(), torch.serialization.safe_globals(NUMPY_SCALARS):
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # refused in our own words below
            return torch.load(file, map_location="cpu", weights_only=True)
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # a damaged pickle fails wherever it is read first: IndexError, struct.error, ...
        if re.search(UNSAFE, str(error), re.IGNORECASE):
            reason = (
                "a pickle that holds more than plain weights and could run code when opened, so it stays closed; ask "
                "its publisher for a state_dict or for safetensors"
            )
        elif start[:1] == PICKLE_MARK or (start == ZIP_MARK and re.search(NOT_PLAIN, str(error), re.IGNORECASE)):
            reason = (
                "truncated, or a pickle that could run code when opened and so stays closed; get it again, or ask its "
                "publisher for a state_dict or for safetensors"
            )
        else:
            reason = "truncated or not a PyTorch file; get it again"
        raise CheckpointError(f"{file}: {reason}.") from None
