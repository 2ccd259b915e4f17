"""``clapkit compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from clapkit.cli.output import print_json

if TYPE_CHECKING:
    import pandas as pd


def compare(
    runs: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Put the figures of runs side by side, with the settings in which they differ.

    Args:
        runs: run folders, or folders of a cross-validation (--folds).
        json: print one JSON document.
    """
    from clapkit.evaluation.compare import compare_runs

    compared = compare_runs(runs)
    if json:
        print_json({"runs": {folder: column.to_dict() for folder, column in compared.items()}})
        return
    for line in aligned(compared):
        print(line)


def aligned(compared: pd.DataFrame) -> list[str]:
    """The table as text: a column per run, the spread over folds beside its mean."""
    from clapkit.evaluation.compare import STD

    rows = [["", *compared.columns]]
    for name in compared.index:
        if name.endswith(STD):
            continue
        cells = [_cell(name, compared.at[name, folder]) for folder in compared]
        if name + STD in compared.index:
            spreads = [compared.at[name + STD, folder] for folder in compared]
            cells = [cell if std is None else f"{cell} ± {std:.3f}" for cell, std in zip(cells, spreads, strict=True)]
        rows.append([name, *cells])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell(name: str, value: Any) -> str:
    if name == "leaky":
        return "LEAKY" if value else "no"
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) and "." not in name and name != "minutes" else f"{value}"
