"""File locks: one program at a time.

The lock ends with the process, however that ends; the existence of the file means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextmanager
def held(
    path: Path,
    patience_s: float,
    waiting: Callable[[], None] | None = None,
    *,
    needed: bool = False,
    removed: bool = False,
) -> Iterator[bool]:
    """Hold a lock; gives False, and holds nothing, where another process has it.

    Parameters
    ----------
    path
        The file to lock, in an existing folder.
    patience_s
        How long to wait for another process.
    waiting
        Called each time that this has passed, to report it or to stop waiting by raising; then
        waiting goes on. None waits once.
    needed
        Whether a file that cannot be locked, as on a file system without locks, raises `OSError` or
        `NotImplementedError`; otherwise it counts as free.
    removed
        Whether the file is deleted at the end; otherwise it is left as the system leaves it.
    """
    from filelock import FileLock

    lock = FileLock(path, timeout=patience_s)
    while _is_anothers(lock, needed):
        if waiting is None:
            yield False
            return
        waiting()
    try:
        yield True
    finally:
        if removed and lock.is_locked:
            with suppress(OSError):  # Windows deletes it by itself, and not while it is held
                path.unlink(missing_ok=True)
        lock.release()


def is_held(path: Path) -> bool:
    """Whether any process holds the lock; False where that is unknown."""
    if not path.exists():
        return False
    with suppress(OSError), held(path, 0) as is_free:
        return not is_free
    return False


def _is_anothers(lock: BaseFileLock, needed: bool) -> bool:
    """Whether another process holds it; otherwise it is ours now, if it can be locked."""
    from filelock import Timeout

    try:
        lock.acquire()
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        if needed:
            raise
    return False
