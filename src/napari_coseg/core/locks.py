"""One program at a time: a locked file keeps others out while one works.

The lock ends with the process, however that ends; that the file is there says nothing.
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
    """Within, nobody else holds the lock; gives False, and holds nothing, where another does.

    Parameters
    ----------
    path
        The file to lock, in a folder that is there.
    patience_s
        How long to wait for another that holds it.
    waiting
        Called each time that this has passed, to tell of it, or to end the waiting by raising;
        then one waits again. Without it, one does not.
    needed
        A file that cannot be locked, as on a file system that knows no locks, raises `OSError` or
        `NotImplementedError`. Else it keeps nobody out.
    removed
        Whether the file is deleted at the end; else it is left as the system leaves it.
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
    """Whether somebody holds the lock, in whatever program; not where that cannot be told."""
    if not path.exists():
        return False
    with suppress(OSError), held(path, 0) as is_free:
        return not is_free
    return False


def _is_anothers(lock: BaseFileLock, needed: bool) -> bool:
    """Whether another holds it; else it is ours from now on, where it can be locked."""
    from filelock import Timeout

    try:
        lock.acquire()
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        if needed:
            raise
    return False
