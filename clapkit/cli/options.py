"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from clapkit.cli.output import note
from clapkit.errors import ClapkitError

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
    Parameter(help="CSV with path and columns of your own, by which --where filters; without PATH its files are the sounds."),
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
    """The sounds that a command shall take, those of the CSV when no path is given, with what it says of them.

    The paths in a CSV are relative to its folder.
    """
    if metadata is None:
        return list(paths)
    import pandas as pd

    from clapkit.audio.io import find_sounds
    from clapkit.data.manifest import read_csv

    table: Any = read_csv(metadata, ("path",), dtype={"path": str})
    if table["path"].isna().any():
        line = int(table["path"].isna().to_numpy().argmax()) + 2  # line 1 is the header
        raise ClapkitError(f"{metadata}, line {line}: has no path; fill it, or leave the line out.")
    table["path"] = [str((metadata.parent / path).resolve()) for path in table["path"]]
    if not paths:
        return table
    sounds = [str(path.resolve()) for path in find_sounds(paths)]
    if not table["path"].isin(sounds).any():
        raise ClapkitError(f"{metadata}: none of its {len(table)} paths is among the sounds; they are relative to it.")
    return pd.DataFrame({"path": sounds}).merge(table, "left", on="path")
