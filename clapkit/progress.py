"""Progress bars for long work: silent in Python, switched on by the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_visible = False


def show_progress(visible: bool) -> None:
    """Turn the bars on (the command line does) or off (the default, and ``--quiet``)."""
    global _visible
    _visible = visible


def is_visible() -> bool:
    """Whether bars and notes are shown."""
    return _visible


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Show one bar on standard error while the block runs.

    Args:
        description: what is being done, in a few words.
        total: number of steps; None when unknown.

    Yields:
        ``advance(n=1, note="")``: count ``n`` more steps and show ``note`` behind the bar.
    """
    if not _visible:
        yield lambda n=1, note="": None
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> str:
            speed = task.finished_speed or task.speed
            return f"{speed:.1f}/s" if speed else ""

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), RateColumn(),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(file=sys.stderr)) as bars:
        task = bars.add_task(description, total=total, note="")

        def advance(n: int = 1, note: str = "") -> None:
            bars.update(task, advance=n, **({"note": note} if note else {}))

        yield advance
