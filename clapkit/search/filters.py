"""``--where``: which windows may be found at all."""

from __future__ import annotations

import numpy as np
import pandas as pd

from clapkit.errors import ClapkitError
from clapkit.search.store import FILE_FACTS, Segment


def allowed_spans(segment: Segment, where: str) -> np.ndarray:
    """The windows that a condition holds for: ``(n_spans,)`` bool.

    Args:
        segment: of an index.
        where: such as ``fold == 2`` or ``path.str.contains("forest") and start_s < 60``, as pandas reads it, over
            ``path``, ``start_s``, ``end_s`` (seconds) and the user's columns.

    Raises:
        ClapkitError: the condition cannot be read, or is not true or false for each window.
    """
    files = segment.files.whole()
    spans = segment.spans.whole(["file", "start_s", "end_s"])
    table = files.drop(columns=FILE_FACTS).iloc[spans["file"]].reset_index(drop=True)
    table = table.assign(start_s=spans["start_s"], end_s=spans["end_s"])
    try:
        holds = table.eval(where, engine="python")
    except Exception as error:  # pandas raises whatever Python does
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ClapkitError(f"--where '{where}': {reason}; expected a condition on {', '.join(table)}.") from None
    if not isinstance(holds, pd.Series) or holds.dtype != bool:
        raise ClapkitError(f"--where '{where}': is no condition; expected such as \"fold == 2\" on {', '.join(table)}.")
    return holds.to_numpy()
