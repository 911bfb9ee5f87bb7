"""Refuse TIFF files of which a part is missing, and tell how much of a file is read.

tifffile gives what is left of a stack, or zeros for what is missing, and says so in a log only.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from napari_coseg.core.errors import ImageError

if TYPE_CHECKING:
    import tifffile

_OTHER_OFFSETS = ("is_ndpi", "is_lsm")
"""Formats that write the places of pages in a way of their own."""
_SCANNERS = ("is_svs", "is_ndpi", "is_scn", "is_philips", "is_bif", "is_qpi", "is_avs")
"""Formats that keep pictures of the slide and its label beside the image."""


def refuse_parts(file: tifffile.TiffFile) -> None:
    """Raise `ImageError` where the file was cut short or lacks planes that it names."""
    path, size = file.filehandle.path, file.filehandle.size
    if not any(getattr(file, kind, False) for kind in _OTHER_OFFSETS):
        pages, beyond = _chain(file)
        if beyond:
            raise ImageError(
                f"{path} was cut short: page {pages + 1} lies beyond its end of {size} bytes, so "
                f"at most {pages} pages are left; copy or save the file again"
            )
    series = file.series[0]
    end = _end_of_pixels(series)
    if end > size:
        raise ImageError(
            f"{path} was cut short: its pixels end at byte {end}, and it has {size} bytes; copy or "
            "save the file again"
        )
    planes = series.size // max(1, series.keyframe.size)
    named = int((file.imagej_metadata or {}).get("images", 0)) if file.is_imagej else 0
    if named > planes:
        raise ImageError(
            f"{path} names {named} planes and holds {planes}; it was cut short: copy or save it "
            "again"
        )
    missing = sum(page is None for page in series.pages) if file.is_ome else 0
    if missing:
        raise ImageError(
            f"{path} lacks {missing} of the {len(series.pages)} planes that it names, which lie in "
            "other files; put these beside it, or save the part that is there as a new file"
        )


def images_left_out(file: tifffile.TiffFile) -> str:
    """What to tell of the images beside the first; "" where there is no other."""
    if any(getattr(file, kind, False) for kind in _SCANNERS):
        return ""
    first, *others = file.series
    full = [one for one in others if not one.keyframe.is_reduced]
    if not full:
        return ""
    shape = " x ".join(str(n) for n in first.shape)
    return f"the first of {len(full) + 1} images in the file, {first.axes} of {shape}, is used"


def _end_of_pixels(series: tifffile.TiffPageSeries) -> int:
    """The byte after the last one of the pixels that lie in the series' own file."""
    ends = [0 if series.dataoffset is None else series.dataoffset + series.nbytes]
    own = series.keyframe.parent
    for page in series.pages:
        if page is not None and page.parent is own:
            parts = zip(page.dataoffsets, page.databytecounts, strict=False)
            ends.append(max((at + count for at, count in parts if count), default=0))
    return max(ends)


def _chain(file: tifffile.TiffFile) -> tuple[int, bool]:
    """How many pages follow each other, and whether another lies beyond the end of the file."""
    handle, layout = file.filehandle, file.tiff
    at, seen = file.pages.first.offset, set[int]()
    while at and at not in seen:
        try:
            handle.seek(at)
            (count,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
            handle.seek(at + layout.tagnosize + count * layout.tagsize)
            (after,) = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))
        except struct.error:
            return len(seen), True
        seen.add(at)
        at = after
    return len(seen), False
