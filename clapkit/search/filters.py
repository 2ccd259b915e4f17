"""``--where``: which windows may be found at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from clapkit.errors import ClapkitError
from clapkit.search.store import FILE_FACTS, Segment


def allowed_spans(segment: Segment, where: str, columns: Sequence[str] = ()) -> np.ndarray:
    """The windows that a condition holds for: ``(n_spans,)`` bool.

    Args:
        segment: of an index.
        where: such as ``fold == 2`` or ``path.str.contains("forest") and start_s < 60``, as pandas reads it, over
            ``path``, ``start_s``, ``end_s`` (seconds) and the user's columns.
        columns: that other segments of the index have; they are empty here where this one has none such.

    Raises:
        ClapkitError: the condition cannot be read, or is not true or false for each window.
    """
    files = segment.files.whole()
    spans = segment.spans.whole(["file", "start_s", "end_s"])
    own = dict.fromkeys([*files.columns, *columns])
    files = files.reindex(columns=[name for name in own if name not in FILE_FACTS])
    table = files.iloc[spans["file"]].reset_index(drop=True).assign(start_s=spans["start_s"], end_s=spans["end_s"])
    try:
        holds = table.eval(where, engine="python")
    except Exception as error:  # pandas raises whatever Python does
        reason = str(getattr(error, "msg", error)).partition("\n")[0] or type(error).__name__
        raise ClapkitError(f"--where '{where}': {reason}; expected a condition on {', '.join(table)}.") from None
    if not isinstance(holds, pd.Series) or holds.dtype != bool:
        raise ClapkitError(f"--where '{where}': is no condition; expected such as \"fold == 2\" on {', '.join(table)}.")
    return holds.to_numpy()
