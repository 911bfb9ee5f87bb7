"""What all tests share: a viewer only where there is a screen."""

from __future__ import annotations

import os
import sys

import pytest

if sys.platform == "win32":
    import torch  # noqa: F401  its libraries must be loaded before Qt's

WINDOW_FIXTURES = {"make_napari_viewer", "make_napari_viewer_proxy", "qtbot", "qapp"}


def has_screen() -> bool:
    """Qt ends the whole run, without a traceback, where it finds none."""
    return not sys.platform.startswith("linux") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_screen = pytest.mark.skip(reason="needs a screen: install Xvfb (xvfb)")
    for item in items:
        if WINDOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("gui")
        if item.get_closest_marker("gui") and not has_screen():
            item.add_marker(no_screen)
