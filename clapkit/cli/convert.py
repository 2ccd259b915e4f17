"""``clapkit convert`` and ``clapkit join``: checkpoints from checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from clapkit.cli.options import Overwrite, Tokenizer
from clapkit.cli.output import note

Half = Annotated[bool, Parameter(negative="", help="Write float16, half as large.")]


def convert(
    source: str, destination: Path, *, half: Half = False, tokenizer: Tokenizer = None, overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Write a checkpoint, a published one too, as a clapkit folder: safetensors, settings, and a card.

    Args:
        source: a checkpoint, a published name, or a file or folder in the format of msclap, LAION or transformers.
        destination: the new folder.
    """
    from clapkit.model import load
    from clapkit.models.checkpoint import RECORD_FILE
    from clapkit.storage import refuse_existing

    refuse_existing(destination, RECORD_FILE, overwrite=overwrite)
    model = load(source, device="cpu", tokenizer=tokenizer)
    tower = model.clap.text_encoder
    if tower is not None and not tower.has_tokenizer:
        note(f"no tokenizer inside: texts need {model.config.text.name}'s, found on the Hub or given by --tokenizer")
    model.save_pretrained(destination, half=half, overwrite=overwrite)
    tried = 'zeroshot --labels "dog barking,siren"' if model.checkpoint.captioner is None else "caption FILE"
    print(f"{source} → {destination}; try: clapkit {tried} --checkpoint {destination}")


def join(*checkpoints: str, output: Path, half: Half = False, overwrite: Overwrite = False) -> None:
    """Make one model of several trained apart with the same settings: their cosines and the head's logits are averaged.

    Args:
        checkpoints: two or more, such as runs that differ in --seed.
        output: the new folder.
    """
    from clapkit.device import choose_device
    from clapkit.model import AudioTextModel, load
    from clapkit.models.checkpoint import RECORD_FILE
    from clapkit.models.joining import join_checkpoints
    from clapkit.storage import refuse_existing

    refuse_existing(output, RECORD_FILE, overwrite=overwrite)
    parts = [load(name, device="cpu").checkpoint for name in checkpoints]
    joined = AudioTextModel(join_checkpoints(parts, checkpoints), choose_device("cpu"), output.name)
    joined.save_pretrained(output, half=half, overwrite=overwrite)
    print(f"{len(parts)} models → {output}, {joined.embed_dim}-d; try: clapkit info {output}")
