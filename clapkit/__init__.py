"""clapkit: understand sounds through language.

``clapkit.load()`` gives a model with ``classify``, ``zeroshot``, ``embed_audio`` and ``embed_text``;
``clapkit.AudioIndex`` finds sounds by text. Nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clapkit.version import __version__

if TYPE_CHECKING:
    from clapkit.errors import (
        AudioError,
        CheckpointError,
        ClapkitError,
        DatasetError,
        IndexMismatchError,
        TextModelError,
    )
    from clapkit.model import AudioTextModel, Score, load
    from clapkit.search.index import AudioIndex, Hit

_HOMES = {
    "AudioTextModel": "clapkit.model",
    "Score": "clapkit.model",
    "load": "clapkit.model",
    "AudioIndex": "clapkit.search.index",
    "Hit": "clapkit.search.index",
    "ClapkitError": "clapkit.errors",
    "AudioError": "clapkit.errors",
    "CheckpointError": "clapkit.errors",
    "DatasetError": "clapkit.errors",
    "IndexMismatchError": "clapkit.errors",
    "TextModelError": "clapkit.errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clapkit' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
