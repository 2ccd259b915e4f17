"""Write one CSV over several datasets, to train on them together; leave out recordings listed in a file.

python examples/mix_datasets.py mixed.csv us8k=DIR/UrbanSound8K esc50=DIR/ESC-50-master [us8k.weight=0.5] [without=FILE]
clapkit train --dataset csv --root mixed.csv --folds all

The n-th fold at hand of every dataset becomes fold n of the mixture, so --folds all never trains on what it tests.
"""

import sys
from pathlib import Path

import pandas as pd

from clapkit.data.datasets import load_manifest

output, *words = sys.argv[1:]
given = dict(word.split("=", 1) for word in words)
without = set(Path(given.pop("without")).read_text().split()) if "without" in given else set()
weights = {name: given.pop(f"{name}.weight", "1") for name in [*given] if "." not in name}

tables = []
for name, root in given.items():
    table = load_manifest(name, Path(root).resolve()).table
    tables.append(table.assign(weight=weights[name], fold=table["fold"].rank(method="dense").astype(int)))
mixed = pd.concat(tables)
kept = mixed[~mixed["source"].isin(without)]
kept[["path", "label", "source", "fold", "weight"]].to_csv(output, index=False)
print(f"{len(kept)} clips, {kept['label'].nunique()} labels in {output}; {len(mixed) - len(kept)} clips left out")
