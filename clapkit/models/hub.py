"""The Hub: checkpoints come from there, from its cache first, and go there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from clapkit.errors import CheckpointError, ClapkitError
from clapkit.progress import is_visible

SMALL_FILES = ["*.json", "*.txt", "*.yaml", "*.safetensors"]
"""Everything of a checkpoint; pickles are asked for only where there is nothing else."""
OLD_WEIGHTS = "pytorch_model.bin"


def fetch(hub_id: str, file: str | None) -> Path:
    """One file, or the folder, of a Hub repository.

    Raises:
        CheckpointError: not in the cache, and not to be had from the Hub.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import disable_progress_bars

    if not is_visible():
        disable_progress_bars()
    for is_offline in (True, False):
        try:
            if file is not None:
                return Path(hf_hub_download(hub_id, file, local_files_only=is_offline))
            for patterns in (SMALL_FILES, [*SMALL_FILES, OLD_WEIGHTS]):
                folder = Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=is_offline))
                if any(folder.glob("*.safetensors")) or (folder / OLD_WEIGHTS).is_file():
                    return folder
        except (OSError, RuntimeError, HFValidationError):
            continue
    whole = f"{hub_id}/{file}" if file else hub_id
    raise CheckpointError(
        f"{whole}: not in the Hub's cache, and the Hub cannot be reached or has no such model; connect once, or give "
        "the file or folder that you have."
    )


def push_folder(save: Callable[[Path], None], repo_id: str, *, private: bool, token: str | None) -> str:
    """Save into a temporary folder and upload that.

    Args:
        save: writes the folder that it is given.
        repo_id: ``user/name``; made if it does not exist.
        private: for a repository that is made.
        token: of the Hub; None for the one saved on this machine.

    Returns:
        The address of the repository.

    Raises:
        ClapkitError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    hub = HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoint"
        save(folder)
        try:
            address = hub.create_repo(repo_id, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repo_id, folder_path=folder)
        except (OSError, RuntimeError, HFValidationError) as error:
            raise ClapkitError(
                f"{repo_id}: could not be uploaded ({str(error).splitlines()[0]}); check the name, the connection, and "
                "your token (hf auth login)."
            ) from None
    return str(address)
