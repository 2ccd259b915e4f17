"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from clapkit.cli.output import note

if TYPE_CHECKING:
    import pandas as pd

    from clapkit.model import AudioTextModel

Flag = Annotated[bool, Parameter(negative="")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document.")]
Strict = Annotated[bool, Parameter(negative="", help="Make any bad file an error instead of skipping it.")]
Overwrite = Annotated[bool, Parameter(negative="", help="Replace what is there.")]
Checkpoint = Annotated[
    str,
    Parameter(help="A checkpoint folder, a published name (see clapkit info), or a file or folder in its format."),
]
Device = Annotated[str, Parameter(help="auto (a GPU when there is one), cpu or cuda.")]
Precision = Annotated[
    Literal["float32", "bf16", "auto"], Parameter(help="Of the towers; bf16 is faster where the hardware has it.")
]
Metadata = Annotated[
    Path | None,
    Parameter(help="CSV with path and columns of your own for --where; without PATH its files are the sounds."),
]
Engine = Annotated[
    Literal["local", "ray"],
    Parameter(help="Who embeds: this machine, or a Ray cluster, whose machines see the same paths."),
]
Tokenizer = Annotated[
    Path | None, Parameter(help="Folder of the tokenizer, for a published checkpoint that holds none.")
]


def load_model(
    checkpoint: str, device: str, precision: str = "float32", tokenizer: Path | None = None
) -> AudioTextModel:
    """Load the model that the options name, and say which it is."""
    from clapkit.model import load

    model = load(checkpoint, device=device, precision=precision, tokenizer=tokenizer)
    note(f"checkpoint {checkpoint} on {model.device}")
    return model


def named_sounds(paths: Sequence[Path], metadata: Path | None) -> list[Path] | pd.DataFrame:
    """The sounds that a command shall take, and what a CSV says of them."""
    if metadata is None:
        return list(paths)
    from clapkit.search.metadata import sounds_with_metadata

    return sounds_with_metadata(paths, metadata)
