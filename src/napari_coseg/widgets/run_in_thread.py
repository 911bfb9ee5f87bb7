"""Run a function of about a second in a thread, so that the window stays responsive."""

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
    """Call a function in a thread; afterwards one of the two callbacks runs in the GUI thread.

    Parameters
    ----------
    failed
        Gets the exception: a `CosegError` that the user can act on, or a bug.
    """

    def on_returned(found: tuple[Any, CosegError | None]) -> None:
        result, error = found
        if error is None:
            done(result)
        else:
            failed(error)

    worker = create_worker(_result_or_error, function, arguments)
    worker.returned.connect(on_returned)
    worker.errored.connect(failed)
    worker.start()


def _result_or_error(
    function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any, CosegError | None]:
    try:
        return function(*arguments), None
    except CosegError as error:  # expected, so not reported as the thread's exception
        return None, error
