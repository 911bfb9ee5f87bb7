"""Named intensity windows of CT, in Hounsfield units."""

from __future__ import annotations

from collections.abc import Sequence

WINDOWS: dict[str, tuple[float, float]] = {
    "bone": (-500.0, 1500.0),
    "soft tissue": (-160.0, 240.0),
    "teeth": (-1000.0, 3000.0),
    "brain": (0.0, 80.0),
    "lung": (-1350.0, 150.0),
}
"""Values that become black and white.

Level and width are 500 and 2000 for bone, 40 and 400 for soft tissue, 1000 and 4000 for teeth
(enamel reaches 3000), 40 and 80 for brain, -600 and 1500 for lung.
"""


def window_name(window: Sequence[float] | None) -> str | None:
    """Name of a window; None where it has none."""
    ends = None if window is None else tuple(window)
    return next((name for name, known in WINDOWS.items() if known == ends), None)


def parse_window(value: object) -> object:
    """A name or the text "LOW,HIGH" as a window; other values as they are, for later checks."""
    if not isinstance(value, str):
        return value
    name = value.strip().lower().replace("_", " ").replace("-", " ")
    if name in WINDOWS:
        return WINDOWS[name]
    if "," not in value:
        raise ValueError(
            f"window {value!r} is not known; give two numbers, or one of {', '.join(WINDOWS)}"
        )
    return value.split(",")
