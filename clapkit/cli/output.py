"""How commands speak: results on standard output, notes on standard error."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from clapkit import progress

BAR_WIDTH = 24


def note(text: str) -> None:
    """A line about what is being done; silent with ``--quiet``."""
    if progress.is_visible():
        print(text, file=sys.stderr)


def warn(text: str) -> None:
    """A line that ``--quiet`` does not silence."""
    print(text, file=sys.stderr)


def print_json(document: Any) -> None:
    """The one JSON document of a ``--json`` command."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_scores(title: str, scores: Sequence[Any]) -> None:
    """Labels with bars, best first, and the raw cosine behind each."""
    print(title)
    width = max(len(score.label) for score in scores)
    for score in scores:
        bar = "█" * round(score.score * BAR_WIDTH)
        print(f"  {score.label:<{width}}  {score.score:6.1%}  {bar:<{BAR_WIDTH}}  similarity {score.similarity:+.2f}")


def report_bad_files(bad_files: Sequence[str], n_files: int) -> None:
    """List skipped files at the end of a bulk command."""
    if bad_files:
        warn(f"{len(bad_files)} of {n_files} files were skipped:")
        for line in bad_files:
            warn(f"  {line}")


def typed_command() -> str:
    """What the user typed, for reports."""
    return " ".join(["clapkit", *(shlex.quote(word) for word in sys.argv[1:])])
