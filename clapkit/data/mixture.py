"""Several datasets as one: the first is tested, all are trained on."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from clapkit.data.manifest import Manifest


def mix_manifests(manifests: Sequence[Manifest], weights: Sequence[float]) -> Manifest:
    """Put datasets together.

    Args:
        manifests: the first keeps its folds; the others have none and are not ``testable``, so they are always trained
            on, but for clips whose recording the test holds too (UrbanSound8K and ESC-50 share dozens).
        weights: how often a clip of each is drawn in one epoch.

    Returns:
        A manifest with all labels, named ``first+second``; its table has a column ``testable`` more.
    """
    tables = [each.table.assign(weight=weight) for each, weight in zip(manifests, weights, strict=True)]
    first, *others = tables
    tables = [first if "testable" in first else first.assign(testable=True)]
    tables += [table.assign(fold=0, testable=False) for table in others]
    labels = tuple(dict.fromkeys(label for each in manifests for label in each.labels))
    note = "; ".join(f"{each.note}, weight {weight:g}" for each, weight in zip(manifests, weights, strict=True))
    return Manifest("+".join(each.dataset for each in manifests), pd.concat(tables, ignore_index=True), labels, note)
