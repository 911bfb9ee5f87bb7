"""What can go wrong by a user's hand: what was got, what was expected, what to do.

The command line and the widgets catch `CosegError` and nothing else, so that a bug in this
package still shows its traceback.
"""


class CosegError(Exception):
    """Base of every error a user can mend."""


class ImageError(CosegError):
    """An image that cannot be understood: its axes, dtype, size or values."""


class SettingsError(CosegError):
    """A setting that does not exist or is out of its range."""


class CheckpointError(CosegError):
    """A weights file that is broken, foreign, or does not fit the network."""


class DatasetError(CosegError):
    """A dataset folder that is missing files or holds labels that cannot be right."""


class OutputError(CosegError):
    """A result that cannot be written where it was asked for."""


class EditError(CosegError):
    """A correction that cannot be made as asked: a line that parts nothing, a click on nothing."""


class WorkspaceError(CosegError):
    """A workspace that is damaged, foreign, in use, or cannot be written at the moment."""


class Cancelled(CosegError):
    """The caller's `should_cancel` said so; nothing is kept."""
