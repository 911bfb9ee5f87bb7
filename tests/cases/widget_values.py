"""Values that the tests of the widgets share: a picture of discs on tissue, and patience."""

from __future__ import annotations

from cases.stub_models import disc_picture, spread_discs

UM = "micrometer"
SHAPE = (160, 200)
TISSUE = (slice(20, 120), slice(30, 180))
CENTRES = spread_discs(SHAPE, 24)
PICTURE, TRUTH = disc_picture(SHAPE, CENTRES, tissue=TISSUE)
RUN_MS = 300_000
"""For what takes one second on an idle machine."""
