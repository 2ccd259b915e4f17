"""What a killed training needs to go on, bit for bit: weights, averages, moments, sums and history, as safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from clapkit.errors import CheckpointError, StorageError
from clapkit.storage import disk_problem

STATE_FILE = "state.safetensors"


@dataclass
class TrainingState:
    """A training under way, between two optimizer steps.

    Attributes:
        network: the model that learns.
        optimizer: of its parameters.
        averaged: the running average of its weights; None without one.
        step: optimizer steps done.
        sums: losses summed over the batches of the epoch under way, float64.
        history: one row of figures for each finished epoch.
        best: weights of the epoch with the lowest validation loss; empty without early stopping.
        seconds: time spent.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    averaged: nn.Module | None = None
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


def save_state(folder: Path, state: TrainingState, run: str) -> None:
    """Write the state; the file before it stays until this one is complete.

    Args:
        folder: where; it is made.
        state: what to write.
        run: identifies settings and clips, so that another run's state is never taken up.
    """
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    if state.averaged is not None:
        tensors |= {f"averaged.{name}": value for name, value in state.averaged.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    tensors |= {f"sums.{name}": value for name, value in state.sums.items()}
    for place, slots in state.optimizer.state_dict()["state"].items():
        kept = {slot: value for slot, value in slots.items() if value is not None}
        tensors |= {f"optimizer.{place}.{slot}": torch.as_tensor(value) for slot, value in kept.items()}
    metadata = {"run": run, "step": str(state.step), "seconds": str(state.seconds)}
    metadata["history"] = json.dumps(state.history)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{STATE_FILE}.part"
    try:
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, partial, metadata
        )
        partial.replace(folder / STATE_FILE)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        reason = disk_problem(error) or str(error)
        raise StorageError(f"{folder}: training state could not be saved ({reason}), then add --resume.") from None


def load_state(folder: Path, state: TrainingState, run: str) -> bool:
    """Restore what was saved into ``state``; False when there is nothing.

    Raises:
        CheckpointError: the state belongs to other settings or clips, or is damaged.
    """
    file = folder / STATE_FILE
    if not file.exists():
        return False
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(f"{file}: damaged ({error}); use --overwrite to start anew.") from None
    if metadata["run"] != run:
        raise CheckpointError(
            f"{file}: belongs to a run with other settings or clips; repeat its settings, or add --overwrite."
        )
    state.network.load_state_dict(_part(tensors, "network"))
    if state.averaged is not None:
        state.averaged.load_state_dict(_part(tensors, "averaged"))
    state.best = _part(tensors, "best")
    state.sums = _part(tensors, "sums")
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(tensors, "optimizer").items():
        place, slot = name.split(".", 1)
        slots.setdefault(int(place), {})[slot] = value
    state.optimizer.load_state_dict({"state": slots, "param_groups": state.optimizer.state_dict()["param_groups"]})
    state.step, state.seconds = int(metadata["step"]), float(metadata["seconds"])
    state.history = json.loads(metadata["history"])
    return True


def _part(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{kind}."): value for name, value in tensors.items() if name.startswith(f"{kind}.")}
