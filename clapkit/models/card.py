"""The page that stands beside a checkpoint: what it is, what it needs, what it got right, and under which licence."""

from __future__ import annotations

from typing import Any

import yaml

from clapkit.models.checkpoint import Checkpoint

LICENCES = {
    "Apache-2.0": "apache-2.0", "MIT": "mit", "MS-PL": "ms-pl", "CC0": "cc0-1.0", "CC BY-NC 4.0": "cc-by-nc-4.0",
}  # fmt: skip
"""The Hub's names of licences; others are given in words."""
MOST_LABELS = 60


def model_card(checkpoint: Checkpoint, name: str) -> str:
    """A README with the Hub's front matter."""
    training = checkpoint.training
    licence = str(training.get("licence", "not stated"))
    front = {
        "library_name": "clapkit",
        "license": LICENCES.get(licence.split(" (")[0], "other"),
        "pipeline_tag": "zero-shot-audio-classification",
        "tags": ["clap", "audio", "contrastive"],
    }
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {name}\n\n{_summary(checkpoint)}",
        _table("Preprocessing", _preprocessing(checkpoint)),
        _table("Training", {key: value for key, value in training.items() if not isinstance(value, dict | list)}),
        _table("Figures", _figures(checkpoint.metrics)),
        f"## Labels\n\n{_labels(checkpoint.labels)}",
        f"## Licence\n\nWeights: {licence}.",
        '## Use\n\n```python\nimport clapkit\n\nmodel = clapkit.load("FOLDER or Hub id")\n'
        'model.zeroshot("sound.wav", ["dog barking", "siren"])\n```',
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(checkpoint: Checkpoint) -> str:
    config = checkpoint.clap.config
    n_parameters = sum(parameter.numel() for parameter in checkpoint.clap.parameters())
    return (
        f"A CLAP model: {config.encoder.name} hears, {config.text.name} reads, {config.model.embed_dim} dimensions, "
        f"{n_parameters:,} parameters here. {checkpoint.training.get('title', '')}"
    ).strip()


def _preprocessing(checkpoint: Checkpoint) -> dict[str, Any]:
    return {key: value for key, value in checkpoint.clap.config.audio.model_dump().items() if value is not None}


def _figures(metrics: dict[str, Any]) -> dict[str, str]:
    return {
        f"{task}: {name}": f"{value:.3f}"
        for task, figures in metrics.items()
        if isinstance(figures, dict)
        for name, value in figures.items()
        if isinstance(value, float)
    }


def _labels(labels: list[str]) -> str:
    if not labels:
        return "None of its own: give labels in free words."
    shown = ", ".join(labels[:MOST_LABELS])
    return shown + (f", and {len(labels) - MOST_LABELS} more" if len(labels) > MOST_LABELS else "")


def _table(title: str, values: dict[str, Any]) -> str:
    if not values:
        return ""
    rows = "\n".join(f"| {key} | {value} |" for key, value in values.items())
    return f"## {title}\n\n| | |\n|---|---|\n{rows}"
