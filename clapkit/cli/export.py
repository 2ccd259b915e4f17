"""``clapkit export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from clapkit.cli.options import Checkpoint, Json, Overwrite, Tokenizer
from clapkit.cli.output import note, print_json


def export(
    format: Literal["onnx"], *, output: Path, checkpoint: Checkpoint = "base", tokenizer: Tokenizer = None,
    overwrite: Overwrite = False, json: Json = False,
) -> None:  # fmt: skip
    """Write both towers for other programs, and check that they compute the same there.

    Args:
        format: onnx.
        output: the new folder: audio.onnx, text.onnx, tokenizer.json, onnx.json, and a README.md on how to run them.
    """
    from clapkit.models.onnx_export import ABOUT_FILE, TOLERANCE, export_onnx
    from clapkit.models.opening import open_checkpoint
    from clapkit.storage import refuse_existing

    refuse_existing(output, ABOUT_FILE, overwrite=overwrite)
    opened = open_checkpoint(checkpoint, tokenizer)
    done = export_onnx(opened, output, name=checkpoint, overwrite=overwrite)
    if json:
        towers = [asdict(each) for each in done.checks]
        print_json({"folder": str(output), "tolerance": TOLERANCE, "towers": towers, "note": done.note})
        return
    for each in done.checks:
        kind = "sounds" if each.file.startswith("audio") else "texts"
        print(f"{each.file}: {', '.join(each.inputs)} → {', '.join(each.outputs)}; {each.size_mb:g} MB")
        print(
            f"  largest difference from the model {each.largest_difference:.1e} (allowed {TOLERANCE:.0e}), on "
            f"{each.n_checked} {kind} alone and together; two {kind} differ by {each.smallest_distance:.1e} or more"
        )
    if len(done.checks) == 1:
        note("this model reads no text, so there is no text.onnx")
    if done.note:
        note(done.note)
    print(f"{checkpoint} → {output}; how to run it: {output / 'README.md'}")
