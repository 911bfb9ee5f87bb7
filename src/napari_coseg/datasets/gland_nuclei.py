"""GlaS and CRAG glands with Lizard nuclei: images with both tasks, as in Co-Seg++.

    root/glas or root/crag      the glands, in a layout that `Glas` or `Crag` reads
    root/lizard                 the nuclei, as `Lizard` reads them
    root/<name>.json            pairs of image names, written by `prepare`

Lizard renamed the images of both datasets without publishing the mapping; `prepare` finds it from
the pixels. Images without a counterpart in Lizard are left out. The paper counts 165 images of GlaS
and 216 of CRAG, more than the released part of Lizard holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from napari_coseg.core.errors import DatasetError, OutputError
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.crag import Crag
from napari_coseg.datasets.files import find_folder, read_rgb
from napari_coseg.datasets.glas import GLAND_CLASSES, Glas
from napari_coseg.datasets.lizard import NUCLEUS_CLASSES, Lizard

MAX_PAIRS_BYTES = 2**20

THUMBNAIL = 16
"""Side of the thumbnails by which images are compared, in blocks."""

SAME_IMAGE = 2.0
"""Largest mean difference of thumbnails of the same image, in grey levels of 256. JPEG of quality
75 changes a GlaS image by at most 0.53; its two most similar images differ by 12.2."""


@dataclass(frozen=True, kw_only=True)
class GlandNuclei(Dataset):
    """Glands as region, Lizard's nuclei as objects; names and splits of the gland dataset."""

    glands: Dataset
    lizard: Lizard

    GLANDS: ClassVar[type[Dataset]]
    PREFIX: ClassVar[str]

    @classmethod
    def open(cls, root: Path) -> GlandNuclei:
        glands = cls.GLANDS.open(find_folder(root, cls.PREFIX, depth=1) or root)
        return cls(
            root=root,
            name=f"{cls.PREFIX}-lizard",
            splits=glands.splits,
            pixel_size_um=glands.pixel_size_um,
            layout=Layout(),
            semantic_classes=GLAND_CLASSES,
            instance_classes=NUCLEUS_CLASSES,
            glands=glands,
            lizard=Lizard.open(find_folder(root, "lizard", depth=1) or root),
        )

    @property
    def pairs_file(self) -> Path:
        """File of name pairs, written by `prepare`."""
        return self.root / f"{self.name}.json"

    def pairs(self) -> dict[str, str]:
        """Our name -> name in Lizard; `DatasetError` if `prepare` has not been run."""
        path = self.pairs_file
        try:
            if path.stat().st_size > MAX_PAIRS_BYTES:
                raise DatasetError(f"{path} is larger than 1 MiB; prepare the dataset again")
            pairs = json.loads(path.read_text(encoding="utf-8"))["pairs"]
            return {str(ours): str(theirs) for ours, theirs in pairs.items()}
        except OSError as error:
            raise DatasetError(
                f"no {path.name} in {self.root}, the table of Lizard's image names; "
                f"run: napari-coseg datasets prepare {self.name} --root {self.root}"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(f'{path} is not JSON of the form {{"pairs": {{name: name}}}}') from (
                error
            )

    def names(self, split: str) -> tuple[str, ...]:
        pairs = self.pairs()
        return tuple(name for name in self.glands.names(split) if name in pairs)

    def load(self, split: str, name: str) -> Sample:
        partner = self.pairs().get(name)
        if partner is None:
            raise DatasetError(f"{self.pairs_file} has no Lizard name for {name!r}")
        instances, types = self.lizard.nuclei(partner)
        sample = self.glands.load(split, name)
        return replace(sample, instances=instances, instance_types=types)

    def source(self, name: str) -> str:
        return self.glands.source(name)

    def prepare(self) -> tuple[Path, ...]:
        """Match the images and write the pairs; reads every image once."""
        ours = {
            name: _Thumbnail.of(self.glands.load(split, name).image)
            for split in self.splits
            for name in self.glands.names(split)
        }
        theirs = {
            name: _Thumbnail.of(read_rgb(path))
            for name, path in self.lizard.images.items()
            if name.lower().startswith(self.PREFIX)
        }
        pairs = match(ours, theirs)
        text = json.dumps({"note": "name here: name in Lizard", "pairs": pairs}, indent=2)
        try:
            self.pairs_file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {self.pairs_file}: {error}") from error
        return (self.pairs_file,)

    def notes(self, images: dict[str, int]) -> tuple[str, ...]:
        ours = sum(len(self.glands.names(split)) for split in images)
        return (f"{sum(images.values())} of {ours} images have nuclei in Lizard",)


class GlasLizard(GlandNuclei):
    """GlaS: glands as a region, nuclei of three types."""

    GLANDS = Glas
    PREFIX = "glas"


class CragLizard(GlandNuclei):
    """CRAG: glands as a region, nuclei of three types."""

    GLANDS = Crag
    PREFIX = "crag"


@dataclass(frozen=True, eq=False)
class _Thumbnail:
    shape: tuple[int, ...]
    means: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray) -> _Thumbnail:
        from PIL import Image

        small = Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        return cls(image.shape, np.asarray(small, np.float32))

    def differs_by(self, other: _Thumbnail) -> float:
        if self.shape != other.shape:
            return float("inf")
        return float(np.abs(self.means - other.means).mean())


def match(ours: dict[str, _Thumbnail], theirs: dict[str, _Thumbnail]) -> dict[str, str]:
    """Our name -> their name, for images of equal size and content."""
    pairs: dict[str, str] = {}
    for name, thumbnail in theirs.items():
        if not ours:
            break
        difference, nearest = min((thumbnail.differs_by(ours[n]), n) for n in ours)
        if difference > SAME_IMAGE:
            continue
        if nearest in pairs:
            raise DatasetError(f"{pairs[nearest]} and {name} of Lizard both look like {nearest}")
        pairs[nearest] = name
    return pairs
