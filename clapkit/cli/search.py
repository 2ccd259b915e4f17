"""``clapkit index`` and ``clapkit search``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clapkit.cli.options import Checkpoint, Device, Json, Overwrite, Precision, Strict, Tokenizer, load_model
from clapkit.cli.output import note, print_json, report_bad_files
from clapkit.errors import ClapkitError


def index(
    *paths: Path, output: Path, checkpoint: Checkpoint = "base", strict: Strict = False, overwrite: Overwrite = False,
    device: Device = "auto", precision: Precision = "float32",
) -> None:  # fmt: skip
    """Make sounds searchable.

    Args:
        paths: sounds or folders of sounds.
        output: the index folder.
    """
    from clapkit.search.index import RECORD_FILE, AudioIndex
    from clapkit.storage import refuse_existing

    if not paths:
        raise ClapkitError("nothing to index; expected clapkit index PATH ... --output INDEX.")
    refuse_existing(output, RECORD_FILE, overwrite=overwrite)
    model = load_model(checkpoint, device, precision)
    built = AudioIndex.build(model, list(paths), strict=strict)
    built.save(output, overwrite=overwrite)
    report_bad_files(built.bad_files, built.n_files + len(built.bad_files))
    print(f'{built.n_files} files in {output}; try: clapkit search "a dog barking" --index {output}')


def search(
    query: str, *, index: Path, k: Annotated[int, Parameter(name=["-k", "--k"])] = 10, checkpoint: str | None = None,
    json: Json = False, device: Device = "auto", tokenizer: Tokenizer = None,
) -> None:  # fmt: skip
    """Find sounds by text.

    Args:
        query: words such as "a dog barking".
        index: folder written by clapkit index.
        k: how many sounds to show.
        checkpoint: the checkpoint that made the index, if it has moved since.
    """
    from clapkit.model import load
    from clapkit.search.index import AudioIndex, checkpoint_of

    model = load(checkpoint or checkpoint_of(index), device=device, tokenizer=tokenizer)
    opened = AudioIndex.load(index, model)
    note(f"{opened.n_files} files, checkpoint {opened.model.name}")
    hits = opened.search(query, k)
    if json:
        print_json({"query": query, "hits": [asdict(hit) for hit in hits]})
        return
    for hit in hits:
        print(f"{hit.score:+.3f}  {hit.start_s:7.2f}-{hit.end_s:.2f} s  {hit.path}")
