"""``--where``: which windows may be found at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from keyword import iskeyword
from types import MappingProxyType

import numpy as np
import pandas as pd

from clapkit.errors import ClapkitError
from clapkit.search.store import FILE_FACTS, Segment

EMPTY: Mapping[str, str] = MappingProxyType({})


def columns_of(segments: Sequence[Segment]) -> dict[str, str]:
    """Each column of the users in some of the segments, and what kind an empty one is of."""
    kinds = {}
    for segment in segments:
        for name, dtype in segment.files.dtypes.items():
            if name not in FILE_FACTS:
                is_bool, is_number = pd.api.types.is_bool_dtype(dtype), pd.api.types.is_numeric_dtype(dtype)
                kinds.setdefault(name, "boolean" if is_bool else "float" if is_number else "str")
    return kinds


def allowed_spans(segment: Segment, where: str, columns: Mapping[str, str] = EMPTY) -> np.ndarray:
    """The windows that a condition holds for: ``(n_spans,)`` bool.

    Args:
        segment: of an index.
        where: such as ``fold == 2`` or ``path.str.contains("forest") and start_s < 60``, as pandas reads it, over
            ``path``, ``start_s``, ``end_s`` (seconds) and the user's columns.
        columns: of all segments, see :func:`columns_of`; those that this one lacks are empty here.

    Raises:
        ClapkitError: the condition cannot be read, or is not true or false for each window.
    """
    files = segment.files.whole()
    spans = segment.spans.whole(["file", "start_s", "end_s"])
    files = files.drop(columns=FILE_FACTS)
    for name, column in files.items():
        if pd.api.types.is_object_dtype(column):  # truth values, some of them empty
            files[name] = column.convert_dtypes()
    for name in columns.keys() - set(files):
        files[name] = pd.Series(index=files.index, dtype=columns[name])
    table = files.iloc[spans["file"]].reset_index(drop=True).assign(start_s=spans["start_s"], end_s=spans["end_s"])
    names = ", ".join(each if each.isidentifier() and not iskeyword(each) else f"`{each}`" for each in table)
    try:
        holds = table.eval(where, engine="python")
    except Exception as error:  # pandas raises whatever Python does
        reason = str(getattr(error, "msg", error)).partition("\n")[0] or type(error).__name__
        raise ClapkitError(f"--where '{where}': {reason}; expected a condition on {names}.") from None
    if isinstance(holds, pd.Series) and holds.dtype == "boolean":
        holds = holds.fillna(False).astype(bool)  # what is empty fulfils nothing
    if not isinstance(holds, pd.Series) or holds.dtype != bool:
        raise ClapkitError(f"--where '{where}': is no condition; expected such as \"fold == 2\" on {names}.")
    return holds.to_numpy()
