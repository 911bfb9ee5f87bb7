"""Image files by their ending. To add a format: write ``readers/<name>.py`` and add its endings."""

from __future__ import annotations

import importlib
from pathlib import Path

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image

_TIFF = "napari_coseg.images.readers.tiff:read"
_PICTURE = "napari_coseg.images.readers.picture:read"
_VOLUME = "napari_coseg.images.readers.volume:read"

READERS: dict[str, str] = {
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".svs": _TIFF,
    ".png": _PICTURE,
    ".jpg": _PICTURE,
    ".jpeg": _PICTURE,
    ".bmp": _PICTURE,
    ".npy": "napari_coseg.images.readers.npy:read",
    ".mha": _VOLUME,
    ".nii": _VOLUME,
    ".nii.gz": _VOLUME,
}
LONGER_ENDINGS = (".ome.tif", ".ome.tiff", ".nii.gz")
"""Those of two parts, which are both no part of the name."""


def read_image(path: str | Path) -> Image:
    """Open an image file; its axes and pixel size come with it where the file says them.

    Large files are opened, not loaded: their pixels are read window by window.

    Raises
    ------
    ImageError
        Where there is no such file, nobody reads its ending, or it is broken.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ImageError(f"there is no image file {path}")
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give the path of an image file")
    ending = next((e for e in READERS if path.name.lower().endswith(e)), None)
    place = READERS.get(ending or "")
    if place is None:
        raise ImageError(
            f"files ending in {path.suffix or 'nothing'!r} cannot be read ({path}); known are "
            f"{', '.join(READERS)}"
        )
    module, function = place.split(":")
    image: Image = getattr(importlib.import_module(module), function)(path)
    return image


def stem_of(path: Path) -> str:
    """File name without its ending; ``.ome.tif`` and ``.nii.gz`` count as one."""
    longer = next((e for e in LONGER_ENDINGS if path.name.lower().endswith(e)), path.suffix)
    return path.name[: -len(longer)] if longer else path.name
