"""Errors that the user can fix. Messages say what was found, what was expected and what to do.

The command line and the widgets catch `CosegError` and nothing else, so that a bug in this
package still shows its traceback.
"""


class CosegError(Exception):
    """Base of every error that the user can fix."""


class ImageError(CosegError):
    """An image that cannot be understood: its axes, dtype, size or values."""


class SettingsError(CosegError):
    """A setting that does not exist or is out of its range."""


class CheckpointError(CosegError):
    """A weights file that is damaged, of another kind, or does not fit the network."""


class DatasetError(CosegError):
    """A dataset folder that is missing files or holds labels that cannot be right."""


class OutputError(CosegError):
    """A result that cannot be written where it was asked for."""


class EditError(CosegError):
    """A correction that cannot be made: a line that splits nothing, a click on background."""


class WorkspaceError(CosegError):
    """A workspace that is damaged, not one of ours, in use, or cannot be written now."""


class Cancelled(CosegError):
    """The caller's `should_cancel` returned True; nothing is kept."""
