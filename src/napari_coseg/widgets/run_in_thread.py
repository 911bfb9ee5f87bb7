"""Work of a second or so in a thread, while the window goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from superqt.utils import create_worker

from napari_coseg.core.errors import CosegError


def run_in_thread(
    function: Callable[..., Any],
    *arguments: Any,
    done: Callable[[Any], None],
    failed: Callable[[Exception], None],
) -> None:
    """Call a function of plain values in a thread; one of the two follows in the window's.

    Parameters
    ----------
    failed
        Gets what was raised: a `CosegError` for the person, or a bug, whose traceback napari shows
        beside.
    """

    def returned(found: tuple[Any, CosegError | None]) -> None:
        result, error = found
        if error is None:
            done(result)
        else:
            failed(error)

    worker = create_worker(_tried, function, arguments)
    worker.returned.connect(returned)
    worker.errored.connect(failed)
    worker.start()


def _tried(
    function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any, CosegError | None]:
    try:
        return function(*arguments), None
    except CosegError as error:  # not for the thread's own report of bugs
        return None, error
