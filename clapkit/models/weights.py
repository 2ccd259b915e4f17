"""Weights by name: given to a model strictly, and told apart by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn

from clapkit.errors import CheckpointError


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], origin: str, advice: str) -> None:
    """Give a model its weights; every key must be there once, in the right shape.

    Raises:
        CheckpointError: a key is missing, unexpected, or has another shape; the message starts with ``origin`` and
            ends with ``advice``.
    """
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{origin}: {_some(missing, 'missing')}{_some(unexpected, 'unexpected')}"
            f"the weights do not belong to this model; {advice}."
        )
    if wrong := [name for name in expected if expected[name].shape != state[name].shape]:
        shapes = f"{tuple(state[wrong[0]].shape)} instead of {tuple(expected[wrong[0]].shape)}"
        raise CheckpointError(f"{origin}: {wrong[0]} has shape {shapes}; {advice}.")
    model.load_state_dict({name: state[name].to(value.dtype) for name, value in expected.items()})


def in_half(value: Tensor) -> Tensor:
    """A floating-point tensor as float16, others as they are."""
    return value.half() if value.is_floating_point() else value


def round_to_half(model: nn.Module) -> None:
    """Round every weight to what float16 can hold; the model goes on computing in its own precision."""
    rounded = {name: in_half(value).to(value.dtype) for name, value in model.state_dict().items()}
    if too_large := [name for name, value in rounded.items() if not value.isfinite().all()]:
        raise CheckpointError(f"{too_large[0]} holds numbers too large for float16; save it without half.")
    model.load_state_dict(rounded)


def weights_fingerprint(model: nn.Module) -> str:
    """A short hash of every tensor of the model, its name included."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _some(names: list[str], what: str) -> str:
    return f"{len(names)} {what} key(s) such as {names[0]}; " if names else ""
