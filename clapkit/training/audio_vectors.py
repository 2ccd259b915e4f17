"""The vectors of a dataset's clips under a frozen audio tower, computed once and kept in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clapkit.data.cache import open_waveforms
from clapkit.data.packs import digest_of, open_pack
from clapkit.model import AudioTextModel

FORMAT = 1
"""Raise it when windows are cut or averaged in another way."""


def audio_vectors(model: AudioTextModel, rows: pd.DataFrame) -> Tensor:
    """Embed manifest rows; clips of equal content are embedded once, and those of earlier runs not at all.

    Args:
        model: whose audio tower and preprocessing make the vectors.
        rows: of a manifest.

    Returns:
        ``(n_rows, embed_dim)`` float32 of unit length.

    Raises:
        AudioError: a clip that cannot be used.
        StorageError: the cache cannot be written.
    """
    waveforms = open_waveforms(rows, model.config.audio)
    maker = sorted(model.fingerprint.items())
    digests = [digest_of(FORMAT, maker, digest) for digest in waveforms.digests]

    def compute(missing: Sequence[int]) -> Iterator[np.ndarray]:
        for output in model.encode(waveforms[place] for place in missing):
            yield output.embedding

    pack = open_pack("audio_vectors", np.float32, digests, compute)
    vectors = np.memmap(pack.file, np.float32, mode="r").reshape(-1, model.embed_dim)
    return torch.from_numpy(vectors[pack.starts // model.embed_dim])
