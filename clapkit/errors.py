"""The errors a user can cause: each message says what was given, what was expected and how to fix it."""


class ClapkitError(ValueError):
    """A user's mistake or a broken input; its message is one readable line."""


class AudioError(ClapkitError):
    """A sound that cannot be used: missing, empty, truncated, not audio, or not finite."""


class ConfigError(ClapkitError):
    """A configuration with an unknown key or a value out of range."""


class StorageError(ClapkitError):
    """A folder that cannot be written: it exists already, or the disk refuses."""


class CheckpointError(ClapkitError):
    """A checkpoint that is missing, damaged, or of another version."""


class DatasetError(ClapkitError):
    """A dataset folder or table that is missing, incomplete, or malformed."""


class TextModelError(ClapkitError):
    """A text tower that is not on this machine, or is not the one the checkpoint was trained with."""


class IndexMismatchError(ClapkitError):
    """A search index that is damaged, or was built by a different model or preprocessing."""


class TrainingError(ClapkitError):
    """A training that cannot go on."""
