"""Convert the resolution of image files to pixel sizes."""

from __future__ import annotations

import math

UNITS_UM = {
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "\\u00b5m": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "inch": 25_400.0,
    "in": 25_400.0,
}
"""Micrometres in a unit of length; the micro sign and the Greek letter both occur."""

COARSEST_UM = 25.0
"""Smaller is a pixel size; 42 um or more is the 72 to 600 dpi of screens and printers."""


def from_dots(y_per_unit: float, x_per_unit: float, unit_um: float) -> tuple[float, float] | None:
    """(y, x) in micrometres from dots per unit; None unless plausible for a microscope."""
    try:
        y, x = unit_um / float(y_per_unit), unit_um / float(x_per_unit)
    except ZeroDivisionError:
        return None
    plausible = all(math.isfinite(size) and 0 < size < COARSEST_UM for size in (y, x))
    return (y, x) if plausible else None
