"""``clapkit evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clapkit.cli.options import Checkpoint, Device, Json, Precision, Tokenizer, load_model
from clapkit.cli.output import note, print_json, warn
from clapkit.errors import DatasetError

if TYPE_CHECKING:
    import pandas as pd

    from clapkit.data.manifest import Manifest


def evaluate(
    *,
    dataset: Literal["us8k", "esc50", "fsd50k", "folder", "csv", "synthetic"],
    root: Path | None = None,
    checkpoint: Checkpoint = "base",
    task: Literal["head", "zeroshot", "retrieval"] = "head",
    fold: int | None = None,
    json: Json = False,
    device: Device = "auto",
    precision: Precision = "float32",
    tokenizer: Tokenizer = None,
) -> None:
    """Measure a checkpoint on labelled clips.

    Args:
        dataset: which dataset.
        root: its folder, or the CSV file.
        task: head (accuracy of the linear head), zeroshot (accuracy by prompts), or retrieval (text finds sound).
        fold: one official fold; all folds present when left out.
    """
    from clapkit.data.datasets import load_manifest
    from clapkit.evaluation.evaluate import evaluate as run

    manifest = load_manifest(dataset, root)
    rows = _labelled_rows(manifest, fold)
    model = load_model(checkpoint, device, precision, tokenizer)
    note(manifest.note)
    unseen = [label for label in model.checkpoint.training.get("unseen_labels", ()) if label in manifest.labels]
    figures = run(model, dataset, rows, list(manifest.labels), [task], unseen_labels=unseen).figures.get(task)
    if figures is None:
        raise DatasetError(f"{dataset}: all its classes were held out of {checkpoint}'s training; use --task zeroshot.")
    result = {"dataset": dataset, "task": task, "fold": fold, **figures, "checkpoint": checkpoint}
    if "published" in model.checkpoint.training:  # its recordings are not listed, so only its publisher knows
        result["leaky"] = result["leaky"] or None
        result["heard_in_training"] = model.checkpoint.training.get(f"saw_{dataset}", "not known")
        warn(f"{checkpoint} and {dataset}: {result['heard_in_training']}")
    if result["leaky"]:
        warn(_leak(result, checkpoint))
    if json:
        print_json(result)
        return
    for line in describe(result):
        print(line)


def _labelled_rows(manifest: Manifest, fold: int | None) -> pd.DataFrame:
    rows = manifest.table
    if fold is not None:
        rows = rows[rows["fold"] == fold]
        if rows.empty:
            present = ", ".join(str(each) for each in manifest.folds) or "none"
            raise DatasetError(f"fold {fold} of {manifest.dataset} is not there; the folds at hand are {present}.")
    rows = rows[rows[[name for name in ("label", "tags") if name in rows]].notna().any(axis=1)]
    if rows.empty:
        raise DatasetError(f"{manifest.dataset}: has captions only; evaluate needs labels.")
    return rows


def describe(result: dict[str, Any]) -> list[str]:
    """A line for each figure, then a table of the classes, best first."""
    lines = []
    for name, value in {**result, **result.get("generalised", {})}.items():
        if name == "leaky" and value is None:
            lines.append(f"{name:<20} not known")
        elif isinstance(value, bool):
            lines.append(f"{name:<20} {'LEAKY' if value else 'no'}")
        elif not isinstance(value, dict | list):
            lines.append(f"{name:<20} {value:.3f}" if isinstance(value, float) else f"{name:<20} {value}")
    per_class = result.get("per_class", {})
    if not per_class:
        return lines
    lines.append("")
    names = [name for name in next(iter(per_class.values())) if name != "n_clips"]
    best_first = sorted(per_class.items(), key=lambda item: -item[1].get("f1", item[1].get("average_precision")))
    rows = [["class", *(name.replace("_", " ") for name in names), "clips"]]
    rows += [[label, *(f"{each[name]:.3f}" for name in names), str(each["n_clips"])] for label, each in best_first]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for label, *cells in rows:
        figures = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([label.ljust(widths[0]), *figures]))
    return lines


def _leak(result: dict[str, Any], checkpoint: str) -> str:
    if n_seen := result["n_seen_in_training"]:
        return f"leaky: {n_seen} of {result['n_clips']} clips come from recordings that {checkpoint} was trained on."
    return f"leaky: {checkpoint} was trained on a random split, so no figure of it counts as unseen."
