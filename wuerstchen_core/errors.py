"""Small named errors. Each message says what came, what is expected and what to do next."""


class WuerstchenError(ValueError):
    """Base of every error that a user's input can cause."""


class CheckpointError(WuerstchenError):
    """A file or folder of weights cannot be used."""


class ForeignCheckpointError(CheckpointError):
    """A readable file that holds something else: another model or another stage."""


class UnreadableCheckpointError(CheckpointError):
    """No such file, or one that no reader understands: empty, truncated, with code in it, …"""


class MismatchedCheckpointError(CheckpointError):
    """The right kind of weights, but missing tensors, other shapes or another config."""


class MissingPartError(CheckpointError):
    """A folder lacks a part that was asked for."""


class LoraError(CheckpointError):
    """A LoRA file that is damaged, for another model, or that fits nothing it was wired to."""


class SettingError(WuerstchenError):
    """A setting (steps, strength, size, sampler name, …) is outside what is possible."""


class WireError(WuerstchenError):
    """A value on the wrong wire: wrong channels, width or rank for this stage."""


class Cancelled(BaseException):
    """The user cancelled. Like KeyboardInterrupt, no `except Exception` swallows it."""
