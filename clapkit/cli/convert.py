"""``clapkit convert``."""

from __future__ import annotations

from pathlib import Path

from clapkit.cli.options import Overwrite, Tokenizer
from clapkit.cli.output import note


def convert(source: str, destination: Path, *, tokenizer: Tokenizer = None, overwrite: Overwrite = False) -> None:
    """Write a published checkpoint as a clapkit folder: safetensors, settings, and a card.

    Args:
        source: a published name, or a file or folder in the format of msclap, LAION or transformers.
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
    model.save_pretrained(destination, overwrite=overwrite)
    tried = 'zeroshot --labels "dog barking,siren"' if model.checkpoint.captioner is None else "caption FILE"
    print(f"{source} → {destination}; try: clapkit {tried} --checkpoint {destination}")
