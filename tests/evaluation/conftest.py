"""What a training hands over, made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clapkit.config import load_config
from clapkit.evaluation.metrics import classification_metrics, retrieval_metrics

LABELS = ["dog barking", "siren", "drilling"]


class MadeUp:
    """A made-up run: figures, history, predictions, record, and the folder with all of them."""

    @staticmethod
    def predictions(predicted: list[int], truth: list[int]) -> pd.DataFrame:
        names = np.array(LABELS)
        return pd.DataFrame(
            {
                "path": [f"{place}.wav" for place in range(len(truth))],
                "source": [str(place) for place in range(len(truth))],
                "label": names[truth],
                "head": names[predicted],
            }
        )

    @staticmethod
    def metrics(predicted: list[int], truth: list[int], *, leaky: bool = False) -> dict[str, Any]:
        """Of a head with these answers, of prompts that are always right, and of a retrieval."""
        common = {"dataset": "us8k", "n_clips": len(truth), "n_seen_in_training": 2 * leaky, "leaky": leaky}
        right = np.array(truth)
        similarity = np.eye(len(LABELS))[:, right]
        return {
            "head": {"task": "head", **common, **classification_metrics(right, np.array(predicted), LABELS)},
            "zeroshot": {"task": "zeroshot", **common, **classification_metrics(right, right, LABELS)},
            "retrieval": {"task": "retrieval", **common, **retrieval_metrics(similarity, similarity > 0)},
        }

    @staticmethod
    def history(n_epochs: int = 4, *, validated: bool = True) -> pd.DataFrame:
        epoch = np.arange(1, n_epochs + 1)
        table = pd.DataFrame({"epoch": epoch, "learning_rate": 1e-3 / epoch, "loss": 3 / epoch})
        table = table.assign(contrastive=2 / epoch, head=1 / epoch)
        return table.assign(val_loss=3.5 / epoch, val_accuracy=1 - 1 / epoch) if validated else table

    @staticmethod
    def record(*settings: str, leaky: bool = False, seconds: float = 90.0) -> dict[str, Any]:
        config = load_config([], settings).model_dump(mode="json")
        return {
            "command": "clapkit train --dataset us8k --folds all",
            "dataset": "us8k",
            "split": "training on folds 1, 3, tested on the unseen fold 2",
            "leakage": "2 recordings lie on both sides" if leaky else "no recording lies on both sides",
            "leaky": leaky,
            "n_clips": {"train": 20, "validation": 0, "test": 4},
            "seed": 7,
            "seconds": seconds,
            "device": "cpu (1 thread)",
            "versions": {"clapkit": "0.1", "torch": "2.14"},
            "differences": dict(text.split("=") for text in settings),
            "config": config,
        }

    @staticmethod
    def write_run(folder: Path, predicted: list[int], truth: list[int], *settings: str, leaky: bool = False) -> Path:
        """A run folder, without weights, pictures and page."""
        folder.mkdir(parents=True)
        figures, made = MadeUp.metrics(predicted, truth, leaky=leaky), MadeUp.record(*settings, leaky=leaky)
        (folder / "metrics.json").write_text(json.dumps(figures))
        (folder / "run.json").write_text(json.dumps(made))
        MadeUp.predictions(predicted, truth).to_csv(folder / "predictions.csv", index=False)
        return folder


@pytest.fixture
def made_up() -> type[MadeUp]:
    """Makers of the parts of a run."""
    return MadeUp
