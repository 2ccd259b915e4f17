"""Any checkpoint by name, file or folder: clapkit's own, one that ships with it, or a published one."""

from __future__ import annotations

from pathlib import Path

from clapkit.errors import CheckpointError
from clapkit.models.checkpoint import RECORD_FILE, Checkpoint, load_checkpoint
from clapkit.resources import shipped_folder


def open_checkpoint(name: str | Path, tokenizer: str | Path | None = None, *, download: bool = True) -> Checkpoint:
    """Read a checkpoint of any kind.

    Args:
        name: a folder of clapkit or of transformers' ``ClapModel``, a weights file of msclap or of LAION, the name of a
            checkpoint that ships with clapkit (``base``), or a published name or Hub id.
        tokenizer: folder or Hub id of the tokenizer, where the checkpoint holds none.
        download: whether a published one may be fetched from the Hub.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
        TextModelError: the tokenizer cannot be read, or belongs to another text tower.
    """
    checkpoint = _open(name, download)
    if tokenizer is not None:
        _give_tokenizer(checkpoint, str(tokenizer), name)
    return checkpoint


def find_folder(name: str | Path) -> Path | None:
    """clapkit's checkpoint folder of this path or shipped name; None where it is neither."""
    places = (Path(name), shipped_folder("checkpoints") / str(name))
    return next((folder for folder in places if (folder / RECORD_FILE).is_file()), None)


def origin_of(name: str | Path) -> str:
    """What another process gives to open the same: a name, or the absolute path of what lies here under it."""
    folder, place = find_folder(name), Path(name)
    is_here = folder == place if folder else place.exists()
    return str(place.resolve()) if is_here else str(name)


def _open(name: str | Path, download: bool) -> Checkpoint:
    if folder := find_folder(name):
        return load_checkpoint(folder)

    from clapkit.models.published import hugging_face, loading  # not needed for clapkit's own
    from clapkit.models.published.catalogue import PUBLISHED

    place, text = Path(name), str(name)
    if place.is_dir():
        return loading.read_folder(place) if hugging_face.is_hugging_face(place) else load_checkpoint(place)
    if place.is_file() or place.suffix in loading.WEIGHT_SUFFIXES:
        return loading.read_file(place)
    is_hub_id = text.count("/") == 1 and not text.startswith((".", "/", "~")) and not place.parent.is_dir()
    if text in PUBLISHED or is_hub_id:
        return loading.read_published(text, download=download)
    shipped = sorted(file.parent.name for file in shipped_folder("checkpoints").glob(f"*/{RECORD_FILE}"))
    known = ", ".join([*shipped, *PUBLISHED])
    raise CheckpointError(
        f"checkpoint '{name}': no such file or folder, and not a known name ({known}); give one of these, or a folder "
        "written by clapkit train."
    )


def _give_tokenizer(checkpoint: Checkpoint, tokenizer: str, name: str | Path) -> None:
    from clapkit.models.tokenizer import load_tokenizer

    if checkpoint.clap.text_encoder is not None:
        checkpoint.clap.text_encoder.use_tokenizer(load_tokenizer(tokenizer))
    elif checkpoint.captioner is not None:
        checkpoint.captioner.use_tokenizer(load_tokenizer(tokenizer))
    else:
        raise CheckpointError(f"{name}: its text tower brings its own tokenizer; leave out tokenizer={tokenizer}.")
