"""Classes that training neither heard nor named, found by words: ten of ESC-50's held out at a time, in five groups.

    python examples/mix_datasets.py mixed.csv us8k=DIR/UrbanSound8K esc50=DIR/ESC-50-master us8k.weight=0.5
    for group in mixed-1 mixed-2 mixed-3 mixed-4 mixed-5; do      # or: animals nature human domestic urban
      clapkit train --dataset csv --root mixed.csv --config configs/base.yaml --test-fold 1 \\
          --hold-out-classes $group --set augment.short=0 --epochs 36 --output runs/unheard/$group
    done
    python benchmarks/unheard.py mixed.csv runs/unheard [--groups categories] [--texts names|all]

The mixed groups have two classes of each of ESC-50's categories; a category held out as a whole leaves nothing like it.
Clips of held-out classes are tested from every fold, the others from the fold that the runs kept. A class is asked for
by its acoustic descriptions (how it sounds, without naming it; those of held-out classes were not trained on), by its
name, or by name, other names and descriptions together. The offset of a group (calibrated stacking) is found on the
other four groups, which are held out of their own runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import clapkit
from clapkit.data.datasets import load_manifest
from clapkit.data.hold_out import CATEGORIES, MIXED
from clapkit.data.prompts import acoustic_descriptions, training_texts
from clapkit.evaluation.evaluate import encode_rows, truth_matrix
from clapkit.evaluation.metrics import best_offset, generalised_zero_shot
from clapkit.progress import show_progress

FIGURES = ("unseen_among_unseen", "unseen", "seen", "harmonic_mean")


def main() -> None:
    """Score the five runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--groups", choices=("mixed", "categories"), default="mixed")
    parser.add_argument("--texts", choices=("descriptions", "names", "all"), default="descriptions")
    parser.add_argument("--test-fold", type=int, default=1)
    options = parser.parse_args()
    show_progress(True)
    manifest = load_manifest("csv", options.csv)
    labels = list(manifest.labels)
    answers = {}
    groups = CATEGORIES if options.groups == "categories" else MIXED
    for group in groups:
        model = clapkit.load(options.runs / group)
        unseen = model.checkpoint.training["unseen_labels"]
        table = manifest.table
        rows = table[(table["fold"] == options.test_fold) | table["label"].isin(unseen)]
        rows = rows[~rows["source"].isin(model.checkpoint.sources)]  # a recording may hold sounds of two classes
        embeddings = np.stack([output.embedding for output in encode_rows(model, rows)])
        scores = embeddings @ label_vectors(model, labels, options.texts).T
        answers[group] = truth_matrix(rows, labels).argmax(axis=1), scores, labels, unseen
    offsets = {group: best_offset(*answer) for group, answer in answers.items()}
    print(f"{'group':<12}{'among the ten':>15}{'among all':>12}{'heard':>8}{'harmonic':>10}   calibrated:"
          f"{'offset':>8}{'unheard':>9}{'heard':>8}{'harmonic':>10}")  # fmt: skip
    table = []
    for group, answer in answers.items():
        offset = float(np.mean([offsets[other] for other in groups if other != group]))
        plain, calibrated = generalised_zero_shot(*answer), generalised_zero_shot(*answer, offset)
        row = [*(plain[name] for name in FIGURES), offset, *(calibrated[name] for name in FIGURES[1:])]
        table.append(row)
        print_row(group, row)
    print_row("mean", np.mean(table, axis=0))


def label_vectors(model: clapkit.AudioTextModel, labels: list[str], texts: str) -> np.ndarray:
    """``(n_labels, embed_dim)`` of unit length."""
    if texts == "names":
        return model.embed_labels(labels)
    texts_of = acoustic_descriptions if texts == "descriptions" else training_texts
    return model.embed_labels({label: texts_of(label) for label in labels})


def print_row(name: str, row: list[float]) -> None:
    """One line of the table."""
    ten, unheard, heard, harmonic, *calibrated = (f"{value:.3f}" for value in row)
    offset, new_unheard, new_heard, new_harmonic = calibrated
    print(f"{name:<12}{ten:>15}{unheard:>12}{heard:>8}{harmonic:>10}              "
          f"{offset:>8}{new_unheard:>9}{new_heard:>8}{new_harmonic:>10}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
