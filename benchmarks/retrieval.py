"""Each class as a text query over an index of clips that the checkpoint never heard: a table, and its mean.

    python benchmarks/retrieval.py DATASET=ROOT:FOLD:CHECKPOINT ...

Every fold is indexed as a user would, by the checkpoint that was trained without it; labels are put aside and only
count the hits. A clip is as near as its best window. R@1 is the part of folds in which the first hit is right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import clapkit
from clapkit.data.datasets import load_manifest
from clapkit.evaluation.metrics import retrieval_metrics
from clapkit.progress import show_progress
from clapkit.search.index import AudioIndex


def score_fold(dataset: str, root: Path, fold: int, checkpoint: str) -> pd.DataFrame:
    """A row per class: ``dataset``, ``fold``, ``label``, ``n_clips``, ``map_at_10``, ``r_at_1``."""
    model = clapkit.load(checkpoint)
    manifest = load_manifest(dataset, root)
    rows = manifest.table[manifest.table["fold"] == fold]
    rows = rows[~rows["source"].isin(model.checkpoint.sources)]  # heard in the other dataset
    index = AudioIndex.build(model, rows[["path"]])
    found = index.search_batch(list(manifest.labels), k=len(index))
    scores = found.groupby(["query", "path"])["score"].max().unstack()
    truth = rows.assign(path=rows["path"].map(lambda path: str(Path(path).resolve()))).set_index("path")["label"]
    truth = truth[scores.columns]
    table = []
    for number, label in enumerate(manifest.labels):
        is_right = (truth == label).to_numpy()
        if is_right.any():
            figures = retrieval_metrics(scores.loc[[number]].to_numpy(), is_right[None])
            table.append((dataset, fold, label, int(is_right.sum()), figures["map_at_10"], figures["r_at_1"]))
    return pd.DataFrame(table, columns=["dataset", "fold", "label", "n_clips", "map_at_10", "r_at_1"])


def main() -> None:
    """Read the options, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="+", metavar="DATASET=ROOT:FOLD:CHECKPOINT")
    show_progress(True)
    tables = []
    for test in parser.parse_args().tests:
        dataset, place = test.split("=", 1)
        root, fold, checkpoint = place.rsplit(":", 2)
        tables.append(score_fold(dataset, Path(root), int(fold), checkpoint))
    table = pd.concat(tables)
    figures = ["map_at_10", "r_at_1"]
    for dataset, own in table.groupby("dataset", sort=False):
        print(f"\n{dataset}, folds {', '.join(map(str, sorted(own['fold'].unique())))}, {own['n_clips'].sum()} clips")
        print(f"{'query':<22}{'clips':>7}{'mAP@10':>9}{'R@1':>7}")
        for label, mine in own.groupby("label"):
            precision, first = mine[figures].mean()
            print(f"{label:<22}{mine['n_clips'].sum():>7}{precision:>9.3f}{first:>7.2f}")
        folds = own.groupby("fold")[figures].mean()
        mean, std = folds.mean(), folds.std()
        shown = [f"{mean[name]:.3f} ± {std[name]:.3f}" for name in figures]
        print(f"mean over classes, then folds: mAP@10 {shown[0]}, R@1 {shown[1]}")


if __name__ == "__main__":
    main()
