"""Where a run that is not finished lies, and what may take its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from clapkit.errors import ClapkitError, StorageError
from clapkit.models.checkpoint import RECORD_FILE
from clapkit.storage import refuse_existing
from clapkit.training.state import STATE_FILE


def state_folder(output: Path) -> Path:
    """Where a run that is not finished lies."""
    output = output.absolute()
    return output.with_name(f"{output.name}.training")


def refuse_to_lose(output: Path, *, overwrite: bool, resume: bool) -> None:
    """Check, before any work, that a run would not destroy a finished or an unfinished one.

    Raises:
        StorageError: it would.
        ClapkitError: both options are given.
    """
    if overwrite and resume:
        raise ClapkitError("--overwrite starts anew and --resume goes on; give only one of them.")
    unfinished = (state_folder(output) / STATE_FILE).exists()
    if resume and output.exists() and not unfinished:
        raise StorageError(f"{output}: is a finished run, nothing is left to resume; choose another --output.")
    refuse_existing(output, RECORD_FILE, overwrite=overwrite or resume)
    if unfinished and not (overwrite or resume):
        raise StorageError(
            f"{state_folder(output)}: holds an unfinished run; add --resume to go on or --overwrite to start anew."
        )


def begin(
    output: Path, accelerator: Accelerator, *, overwrite: bool, resume: bool, report: Callable[[str], None]
) -> None:
    """Remove an unfinished run that shall start anew, and say when there is nothing to go on with."""
    accelerator.wait_for_everyone()  # every process has looked at the output before one changes it
    if overwrite and accelerator.is_main_process:
        shutil.rmtree(state_folder(output), ignore_errors=True)
    if resume and not (state_folder(output) / STATE_FILE).exists():
        report(f"nothing to resume in {state_folder(output)}: starting anew")
    accelerator.wait_for_everyone()
