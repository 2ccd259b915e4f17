"""What is looked for: words, several texts, sums and differences of them, and sounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clapkit.errors import ClapkitError

if TYPE_CHECKING:
    from clapkit.model import AudioTextModel

_TERM = re.compile(r"(?:^|\s)([+-])(?=\S)")
"""A sign that starts a term: at the beginning or behind a space, with no space after it."""


def read_terms(text: str) -> list[tuple[float, str]]:
    """``dog barking`` → one term; ``+dog -heavy traffic`` → dog with weight 1, heavy traffic with −1.

    Raises:
        ClapkitError: no words, or a sign without words.
    """
    pieces = _TERM.split(text)  # words before the first sign, then sign, words, sign, words …
    terms = [(1.0, pieces[0])] if pieces[0].strip() else []
    terms += [(1.0 if sign == "+" else -1.0, words) for sign, words in zip(pieces[1::2], pieces[2::2], strict=True)]
    terms = [(weight, " ".join(words.split())) for weight, words in terms]
    if not terms or not all(re.search(r"\w", words) for _, words in terms):
        raise ClapkitError(f"query '{text}': empty text; expected words such as 'a dog barking' or '+dog -traffic'.")
    return terms


def query_vector(model: AudioTextModel, texts: str | Sequence[str] = (), like: Sequence[Any] = ()) -> np.ndarray:
    """One vector for everything that is looked for: the sum of its terms, at unit length.

    Args:
        model: made the index.
        texts: a query of :func:`read_terms`, or several, which are averaged.
        like: sounds that hits shall resemble: paths, bytes or arrays.

    Returns:
        ``(embed_dim,)`` float32.

    Raises:
        ClapkitError: nothing is looked for, or the terms cancel out.
    """
    terms = [term for text in ([texts] if isinstance(texts, (str, Path)) else texts) for term in read_terms(str(text))]
    vectors = []
    if terms:
        weights = np.array([weight for weight, _ in terms], dtype=np.float32)
        vectors.append(weights[:, None] * model.embed_text([words for _, words in terms]))
    if like:
        vectors.append(model.embed_audio(list(like)))
    if not vectors:
        raise ClapkitError("nothing to look for; expected words, or a sound.")
    total = np.concatenate(vectors).sum(axis=0)
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        raise ClapkitError(f"query {texts!r}: its terms cancel out; look for something that is not taken away again.")
    return total / length
