"""FSD50K in its publisher's layout: several labels for each clip.

Source: Fonseca, Favory, Pons, Font and Serra 2022, FSD50K: An Open Dataset of Human-Labeled Sound Events.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clapkit.data.manifest import Manifest, published_manifest, read_csv, read_metadata
from clapkit.data.prompts import clean_label
from clapkit.errors import DatasetError

N_CLIPS = 51_197
DEV = Path("FSD50K.ground_truth/dev.csv")
EVAL = Path("FSD50K.ground_truth/eval.csv")
VOCABULARY = Path("FSD50K.ground_truth/vocabulary.csv")
DEV_FOLDS = {"train": 1, "val": 2}
EVAL_FOLD = 3


def load(root: Path) -> Manifest:
    """Read the ground truth and check that its clips are there.

    The publisher's parts are the folds: training is 1, validation 2, evaluation 3.

    Args:
        root: the folder with ``FSD50K.dev_audio``, ``FSD50K.eval_audio`` and ``FSD50K.ground_truth``.

    Returns:
        A manifest with ``tags`` and without ``label``; its labels have the vocabulary's order, then those that the
        vocabulary lacks, as excerpts of the dataset do.

    Raises:
        DatasetError: CSV or clips missing, an empty cell, or a split that is neither train nor val.
    """
    dev = read_metadata(root / DEV, ("fname", "labels", "split"))
    unknown = ~dev["split"].isin(DEV_FOLDS)
    if unknown.any():
        line = int(unknown.to_numpy().argmax()) + 2  # line 1 is the header
        raise DatasetError(f"{root / DEV}, line {line}: split '{dev['split'][line - 2]}': expected train or val.")
    evaluation = read_metadata(root / EVAL, ("fname", "labels"))
    rows = pd.concat([
        dev.assign(folder="FSD50K.dev_audio", fold=dev["split"].map(DEV_FOLDS)),
        evaluation.assign(folder="FSD50K.eval_audio", fold=EVAL_FOLD),
    ])  # fmt: skip
    clips = pd.DataFrame({
        "path": [root / folder / f"{name}.wav" for folder, name in zip(rows["folder"], rows["fname"], strict=True)],
        "tags": [tuple(dict.fromkeys(map(clean_label, labels.split(",")))) for labels in rows["labels"]],
        "fold": rows["fold"].astype(int).to_numpy(),
        "source": [f"freesound:{name}" for name in rows["fname"]],
    })  # fmt: skip
    known = read_csv(root / VOCABULARY, ("index", "label"), header=None, names=["index", "label", "mid"])
    vocabulary = known["label"].astype(str).map(clean_label)
    labels = tuple(dict.fromkeys([*vocabulary, *(tag for tags in clips["tags"] for tag in tags)]))
    return published_manifest("fsd50k", root, clips, labels, N_CLIPS)
