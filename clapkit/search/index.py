"""Text finds sound: a FAISS index of window vectors with paths and time spans."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd

from clapkit.audio.io import find_sounds
from clapkit.errors import AudioError, ClapkitError, IndexMismatchError
from clapkit.model import AudioTextModel, load
from clapkit.search.embed import encode_files
from clapkit.storage import replacing_folder

FORMAT_VERSION = 1
VECTORS_FILE, SPANS_FILE, RECORD_FILE = "vectors.faiss", "spans.csv", "index.json"
SPAN_COLUMNS = ["path", "start_s", "end_s"]


@dataclass(frozen=True)
class Hit:
    """One found span of a sound.

    Attributes:
        path: the file.
        score: cosine between the query and the span, in [-1, 1].
        start_s: start of the span in seconds.
        end_s: end of the span in seconds.
    """

    path: str
    score: float
    start_s: float
    end_s: float


class AudioIndex:
    """Window vectors of many sounds, searched by text with the model that made them.

    Attributes:
        model: the model that embeds queries.
        spans: a row per vector: ``path``, ``start_s``, ``end_s``.
        bad_files: one line for each file that was skipped while building.
    """

    def __init__(
        self, model: AudioTextModel, vectors: faiss.Index, spans: pd.DataFrame, bad_files: Sequence[str] = ()
    ) -> None:
        self.model = model
        self.spans = spans
        self.bad_files = list(bad_files)
        self._vectors = vectors

    def __len__(self) -> int:
        return self._vectors.ntotal

    @property
    def n_files(self) -> int:
        """Files with at least one span."""
        return self.spans["path"].nunique()

    @classmethod
    def build(
        cls, model: AudioTextModel, paths: str | Path | Sequence[str | Path], *, strict: bool = False
    ) -> AudioIndex:
        """Embed files and folders; bad files are skipped and listed in ``bad_files``.

        Args:
            model: from :func:`clapkit.load`.
            paths: a file or folder, or several; folders are searched for sounds.
            strict: make any bad file an error.

        Raises:
            AudioError: a path does not exist, a folder holds no sound, no file was usable, or a bad file when strict.
        """
        if not isinstance(paths, (str, Path)) and not len(paths):
            raise AudioError("nothing to index; expected at least one file or folder.")
        given = [paths] if isinstance(paths, (str, Path)) else list(paths)
        files = find_sounds([Path(path) for path in given])
        result = encode_files(model, files, strict=strict)
        if not result.clips:
            raise AudioError(
                f"none of the {len(files)} file(s) could be used; the first problem: {result.bad_files[0]}"
            )
        spans = pd.DataFrame(
            [
                (str(file.resolve()), start_s, end_s)
                for file, output in result.clips
                for start_s, end_s in zip(output.start_s, output.end_s, strict=True)
            ],
            columns=SPAN_COLUMNS,
        )
        vectors = faiss.IndexFlatIP(model.embed_dim)
        vectors.add(np.concatenate([output.windows for _, output in result.clips]))
        return cls(model, vectors, spans, result.bad_files)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """Find the spans nearest to a text, at most one per file, best first.

        Args:
            query: words such as ``a dog barking``.
            k: how many files to return; fewer come back from a smaller index.
        """
        if k < 1:
            raise ClapkitError(f"k={k}: expected at least 1 hit.")
        n_wanted, hits = k, {}
        vector = self.model.embed_text([query])
        while len(hits) < min(k, self.n_files):  # long files hold many spans, so more of them may be needed
            n_wanted = min(2 * n_wanted, len(self))
            scores, places = self._vectors.search(vector, n_wanted)
            for score, place in zip(scores[0].tolist(), places[0].tolist(), strict=True):
                path, start_s, end_s = self.spans.iloc[place]
                hits.setdefault(path, Hit(path, score, float(start_s), float(end_s)))
            if n_wanted == len(self):
                break
        return list(hits.values())[:k]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the index folder in one step; it remembers which model and preprocessing made it.

        Raises:
            StorageError: the folder exists and ``overwrite`` is off, or the disk is full.
        """
        with replacing_folder(Path(folder), RECORD_FILE, overwrite=overwrite) as partial:
            _write_vectors(self._vectors, partial / VECTORS_FILE)
            self.spans.to_csv(partial / SPANS_FILE, index=False, quoting=csv.QUOTE_NONNUMERIC)
            name = str(Path(self.model.name).resolve()) if Path(self.model.name).exists() else self.model.name
            record = {"format_version": FORMAT_VERSION, "checkpoint": name, "fingerprint": self.model.fingerprint}
            (partial / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, model: AudioTextModel | None = None) -> AudioIndex:
        """Open an index with the model that made it.

        Args:
            folder: written by :meth:`save`.
            model: the model that made it; None loads the checkpoint that the index names.

        Raises:
            IndexMismatchError: damaged, of another version, or made by another model or preprocessing.
            CheckpointError: the checkpoint that the index names is gone.
        """
        folder = Path(folder)
        record = _read_record(folder)
        model = model or load(record["checkpoint"])
        for part, made_with in record["fingerprint"].items():
            if made_with != model.fingerprint[part]:
                raise IndexMismatchError(
                    f"{folder}: was built with {part} {made_with} ({record['checkpoint']}), but {model.name} has "
                    f"{model.fingerprint[part]}; give that checkpoint, or build the index again."
                )
        try:
            vectors = faiss.read_index(str(folder / VECTORS_FILE))
            spans = pd.read_csv(folder / SPANS_FILE, dtype={"path": str}, keep_default_na=False)
        except (RuntimeError, OSError, ValueError) as error:  # pandas and faiss raise many kinds
            raise IndexMismatchError(f"{folder}: damaged ({str(error).splitlines()[0]}); build it again.") from None
        if list(spans.columns) != SPAN_COLUMNS or len(spans) != vectors.ntotal:
            raise IndexMismatchError(f"{folder}: {vectors.ntotal} vectors but {len(spans)} spans; build it again.")
        return cls(model, vectors, spans)


def checkpoint_of(folder: str | Path) -> str:
    """Name or folder of the checkpoint that made an index."""
    return str(_read_record(Path(folder))["checkpoint"])


def _read_record(folder: Path) -> dict[str, Any]:
    """What an index says of itself: ``checkpoint`` (name or folder) and ``fingerprint``."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise IndexMismatchError(
            f"{folder}: is not an index; make one with clapkit index PATH --output {folder}."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        record = {}
    record = record if isinstance(record, dict) else {}
    if record.get("format_version") != FORMAT_VERSION or not {"checkpoint", "fingerprint"} <= record.keys():
        raise IndexMismatchError(
            f"{folder / RECORD_FILE}: format version {record.get('format_version')}, this clapkit reads version "
            f"{FORMAT_VERSION}; build the index again."
        )
    return record


def _write_vectors(vectors: faiss.Index, file: Path) -> None:
    try:
        faiss.write_index(vectors, str(file))
    except RuntimeError as error:  # faiss reports a full disk as its own error
        raise OSError(str(error).splitlines()[0]) from None
