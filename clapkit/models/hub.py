"""The Hub: checkpoints come from there, from its cache first, and go there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from clapkit.errors import CheckpointError, ClapkitError
from clapkit.progress import is_visible

CHECKPOINT_FILES = ["*.json", "*.txt", "*.yaml", "*.safetensors"]
"""Everything of a checkpoint; pickles are asked for only where there is nothing else."""
OLD_WEIGHTS = "pytorch_model.bin"


def snapshot(
    hub_id: str, patterns: Sequence[str], is_whole: Callable[[Path], bool], *, download: bool = True
) -> Path | None:
    """Some files of a Hub repository, from the cache where they are whole, else from the Hub; None where neither.

    Args:
        hub_id: such as ``laion/clap-htsat-unfused``.
        patterns: names of the files that are wanted.
        is_whole: whether a folder of the cache holds what is needed; a broken download may have left only a part.
        download: whether the Hub may be asked.
    """
    from huggingface_hub import snapshot_download

    def get(is_offline: bool) -> Path | None:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), local_files_only=is_offline))

    cached = _quietly(lambda: get(True))
    if cached is not None and is_whole(cached):
        return cached
    fetched = _quietly(lambda: get(False)) if download else None
    return fetched if fetched is not None and is_whole(fetched) else None


def fetch_checkpoint(hub_id: str, file: str | None, *, download: bool = True) -> Path:
    """One weights file of a Hub repository, or its folder.

    Raises:
        CheckpointError: not in the cache, and not to be had from the Hub.
    """
    if file is not None:  # through a snapshot too: a download of one file would try for half a minute to connect
        folder = snapshot(hub_id, [file], lambda folder: (folder / file).is_file(), download=download)
        place = folder and folder / file
    else:
        lists = ([*CHECKPOINT_FILES], [*CHECKPOINT_FILES, OLD_WEIGHTS])
        places = (snapshot(hub_id, patterns, _has_weights, download=download) for patterns in lists)
        place = next((place for place in places if place is not None), None)
    if place is not None:
        return place
    missing = f"{hub_id}/{file}: " if file else f"{hub_id}: no such folder, "
    asked = ", and the Hub cannot be reached or has no such model" if download else ""
    raise CheckpointError(
        f"{missing}not in the Hub's cache{asked}; connect once, or give the file or folder that you have."
    )


def _has_weights(folder: Path) -> bool:
    return any(file.is_file() for file in [*folder.glob("*.safetensors"), folder / OLD_WEIGHTS])


def _quietly(get: Callable[[], Path]) -> Path | None:
    """What ``get`` fetches; None where it cannot, without the library's own warnings and bars."""
    from huggingface_hub.errors import HFValidationError, HTTPError  # no OSError where nobody answers
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    if not is_visible():
        disable_progress_bars()
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # it would announce each of five attempts
    try:
        return get()
    except (OSError, RuntimeError, HFValidationError, HTTPError):
        return None
    finally:
        hub_logging.set_verbosity(verbosity)


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
    from huggingface_hub.errors import HFValidationError, HTTPError

    hub = HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoint"
        save(folder)
        try:
            address = hub.create_repo(repo_id, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repo_id, folder_path=folder)
        except (OSError, RuntimeError, HFValidationError, HTTPError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ClapkitError(
                f"{repo_id}: could not be uploaded ({reason}); check the name, the connection, and "
                "your token (hf auth login)."
            ) from None
    return str(address)
