"""Found moments as sounds: written as files, or played."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clapkit.audio.io import encode_wav, load_waveform
from clapkit.errors import ClapkitError, StorageError
from clapkit.search.nearest import Hit

PLAYERS = (
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("play", "-q"),
    ("paplay",),
    ("aplay", "-q"),
    ("afplay",),
)
"""Programs that play a WAV file, with their options."""
RATE = 44_100


def extract_hit(hit: Hit, rank: int, folder: Path) -> Path:
    """Write a moment as ``<rank>-<name>-<start>s.wav``, in stereo at 44.1 kHz.

    Args:
        hit: the moment.
        rank: 1 for the best.
        folder: made if it does not exist.

    Returns:
        The file.

    Raises:
        AudioError: the sound has vanished since it was indexed, or cannot be read.
        StorageError: a file has the name of the folder.
    """
    if folder.is_file():
        raise StorageError(f"{folder}: is a file; expected a folder to write the found sounds into.")
    folder.mkdir(parents=True, exist_ok=True)
    waveform = load_waveform(hit.path, RATE, n_channels=2, start_s=hit.start_s, end_s=hit.end_s)
    file = folder / f"{rank:03d}-{Path(hit.path).stem}-{hit.start_s:.1f}s.wav"
    scratch = file.with_suffix(".part")  # a full disk leaves no half of a sound
    try:
        scratch.write_bytes(encode_wav(waveform.clip(-1, 1), RATE))
        return scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)


def play_hits(hits: Sequence[Hit]) -> None:
    """Play the moments one after the other.

    Raises:
        ClapkitError: no player is on this machine.
    """
    player = next((command for command in PLAYERS if shutil.which(command[0])), None)
    if player is None:
        names = ", ".join(command[0] for command in PLAYERS)
        raise ClapkitError(f"--play: found none of {names}; install one, or write the moments with --extract DIR.")
    with tempfile.TemporaryDirectory() as folder:
        for rank, hit in enumerate(hits, start=1):
            subprocess.run([*player, str(extract_hit(hit, rank, Path(folder)))], check=False)
