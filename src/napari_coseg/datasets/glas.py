"""GlaS: glands of colon H&E at 20x, 85 training and 80 test images, mostly 775 x 522.

Sirinukunwattana et al., "Gland segmentation in colon histology images: the GlaS challenge contest",
Medical Image Analysis 2017. Two layouts are read:

    root/{train,testA,testB}_<number>{,_anno}.bmp and root/Grade.csv    as released
    root/{train,testA}/{images,gland}/<name>.{jpg,png}                  unpacked, without gland ids
    root/index.csv                                                      patients and grades

`Glas` reads glands as a region without objects, since the objects of a co-segmentation are nuclei;
`GlasGlands` reads each gland as an object too.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.datasets.files import as_labels, natural_key, read_labels, read_rgb

GLAND_CLASSES = (LabelClass(1, "gland", (160, 90, 200)),)

# Publications give 0.465 and 0.62; 0.5 lies between them.
PIXEL_SIZE_UM = 0.5

MAX_TABLE_BYTES = 2**20


class Grade(NamedTuple):
    """A row of the table: patient and grade."""

    patient: str
    grade: str


@dataclass(frozen=True)
class Glas(Dataset):
    """Glands as a region; as released or unpacked."""

    @classmethod
    def open(cls, root: Path) -> Glas:
        if _find_released(root) is not None:
            return GlasBmp.open(root)
        return cls(
            root=root,
            name="glas",
            splits=("train", "testA"),
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(semantic="gland"),
            semantic_classes=GLAND_CLASSES,
            official_images={"train": 85, "testA": 60},
        )

    def source(self, name: str) -> str:
        """The patient, if the table has it; 8 patients are in both train and testA."""
        grade = self.grades().get(name)
        return f"patient {grade.patient}" if grade else name

    def grades(self) -> dict[str, Grade]:
        """Patient and grade of each image; empty without ``index.csv``."""
        header, *rows = _read_table(self.root / "index.csv") or [[]]
        if not rows:
            return {}
        try:
            name, patient, grade = (header.index(key) for key in ("name", "patient", "grade"))
            return {row[name]: Grade(row[patient], row[grade]) for row in rows}
        except (ValueError, IndexError) as error:
            raise DatasetError(
                f"{self.root / 'index.csv'} lacks one of the columns name, patient, grade: {error}"
            ) from error


@dataclass(frozen=True)
class GlasBmp(Glas):
    """As released: one folder; values of ``<name>_anno.bmp`` are gland ids."""

    NAME: ClassVar[str] = "glas"
    AS_OBJECTS: ClassVar[bool] = False

    @classmethod
    def open(cls, root: Path) -> GlasBmp:
        released = _find_released(root)
        if released is None:
            raise DatasetError(f"no *_anno.bmp of GlaS in {root}; only these files have gland ids")
        return cls(
            root=released,
            name=cls.NAME,
            splits=("train", "testA", "testB"),
            pixel_size_um=PIXEL_SIZE_UM,
            layout=Layout(),
            semantic_classes=GLAND_CLASSES,
            instance_classes=GLAND_CLASSES if cls.AS_OBJECTS else (),
            official_images={"train": 85, "testA": 60, "testB": 20},
        )

    def names(self, split: str) -> tuple[str, ...]:
        self.folder(split)
        found = (path.stem for path in self.root.glob(f"{split}_*.bmp"))
        names = sorted((name for name in found if not name.endswith("_anno")), key=natural_key)
        if not names:
            raise DatasetError(f"no images {split}_*.bmp in {self.root}")
        return tuple(names)

    def load(self, split: str, name: str) -> Sample:
        self.folder(split)
        image = read_rgb(self.root / f"{name}.bmp")
        glands = read_labels(self.root / f"{name}_anno.bmp")
        return gland_sample(name, image, glands, self.pixel_size_um, self.AS_OBJECTS)

    def grades(self) -> dict[str, Grade]:
        """Patient and grade of each image; empty without ``Grade.csv``."""
        rows = _read_table(self.root / "Grade.csv")[1:]
        return {name: Grade(patient, grade) for name, patient, grade, *_ in rows}

    def notes(self, images: dict[str, int]) -> tuple[str, ...]:
        graded = self.grades()
        there = {name for split in images for name in self.names(split)}
        notes = list(super().notes(images))
        if not graded:
            notes.append("no Grade.csv: patients and grades are not known")
        elif missing := sorted(set(graded) - there, key=natural_key):
            notes.append(
                f"Grade.csv names {len(missing)} images that are not there: "
                + ", ".join(missing[:5])
            )
        return tuple(notes)


@dataclass(frozen=True)
class GlasGlands(GlasBmp):
    """As released, with glands as a region and as objects."""

    NAME: ClassVar[str] = "glas-glands"
    AS_OBJECTS: ClassVar[bool] = True


def gland_sample(
    name: str, image: np.ndarray, glands: np.ndarray, pixel_size_um: float, as_objects: bool
) -> Sample:
    """A sample of glands with ids: a region, and optionally objects of one class."""
    glands = as_labels(glands, f"glands of {name!r}")
    region = (glands > 0).astype(np.uint8)
    return Sample(
        name=name,
        image=image,
        pixel_size_um=pixel_size_um,
        semantic=region,
        instances=glands if as_objects else None,
        instance_types=region if as_objects else None,
    )


def _read_table(path: Path) -> list[list[str]]:
    """Rows with at least three cells, stripped; none without the file."""
    if not path.is_file():
        return []
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise DatasetError(f"{path} is larger than 1 MiB; that is not the table of GlaS")
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (ValueError, csv.Error) as error:
        raise DatasetError(f"{path} is not a table of text: {error}") from error
    return [[cell.strip() for cell in row] for row in rows if len(row) >= 3]


def _find_released(root: Path) -> Path | None:
    """`root` or a direct subfolder that holds ``*_anno.bmp``."""
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if any(folder.glob("*_anno.bmp")):
            return folder
    return None
