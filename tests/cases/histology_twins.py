"""Tiny copies of the layouts in which histology datasets are released, made in a folder.

Each maker writes images of 12 x 16 (Y, X); no two in a folder look alike.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SHAPE = (12, 16)
GLANDS = np.zeros(SHAPE, np.uint8)  # two glands side by side, which only their ids tell apart
GLANDS[2:10, 1:8], GLANDS[2:10, 8:15] = 1, 2
NUCLEI = np.zeros(SHAPE, np.int32)  # ids with a hole between them
NUCLEI[1:3, 1:3], NUCLEI[5:7, 4:6], NUCLEI[5:7, 10:12], NUCLEI[9:11, 1:4] = 1, 2, 3, 7
LIZARD_CLASSES = {1: 2, 2: 1, 3: 4, 7: 6}  # epithelial, neutrophil, plasma, connective


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(name: str, *rings: list[list[float]], kind: str = "Polygon") -> dict:
    coordinates = list(rings) if kind == "Polygon" else [[ring] for ring in rings]
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }


def write_geojson(path: Path, *features: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))


def make_puma(root: Path, prefix: str = "01_training_dataset_") -> None:
    """Tissue: tumour with a hole, stroma, a vessel in it. Nuclei: one of four kinds, one in two."""
    for number in (1, 2):
        name = f"training_set_primary_roi_{number:03}"
        write(root / f"{prefix}tif_ROIs" / f"{name}.tif", picture(number))
        write_geojson(
            root / f"{prefix}geojson_tissue" / f"{name}_tissue.geojson",
            feature("tissue_blood_vessel", square(10, 2, 2)),
            feature("tissue_tumor", square(0, 0, 8), square(2, 2, 4)),
            feature("tissue_stroma", square(8, 0, 8)),
        )
        write_geojson(
            root / f"{prefix}geojson_nuclei" / f"{name}_nuclei.geojson",
            feature("nuclei_tumor", square(1, 1, 2)),
            feature("nuclei_plasma_cell", square(6, 1, 2)),
            feature("nuclei_melanophage", square(11, 1, 2)),
            feature("nuclei_lymphocyte", square(1, 9, 2), square(5, 9, 2), kind="MultiPolygon"),
        )


def make_glas_bmp(root: Path) -> None:
    folder = root / "Warwick QU Dataset (Released 2016_07_08)"
    rows = ["name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for seed, name in enumerate(("testA_1", "testB_1", "train_1", "train_2", "train_10")):
        write(folder / f"{name}.bmp", picture(seed))
        write(folder / f"{name}_anno.bmp", GLANDS)
        rows.append(f"{name},{seed}, benign, healthy")
    (folder / "Grade.csv").write_text("\n".join(rows))


def make_crag(root: Path) -> None:
    for seed, (split, name) in enumerate((("train", "train_1"), ("valid", "test_1"))):
        write(root / "CRAG" / split / "Images" / f"{name}.png", picture(10 + seed))
        write(root / "CRAG" / split / "Annotation" / f"{name}.png", GLANDS)


def make_lizard(root: Path, images: dict[str, int] | None = None) -> None:
    """`images`: name -> seed of its picture."""
    rows = ["Filename,Source,Split"]
    for i, (name, seed) in enumerate((images or {"crag_1": 1, "dpath_1": 2, "glas_1": 3}).items()):
        half = 1 + i % 2
        write(root / f"lizard_images{half}/Lizard_Images{half}/{name}.png", picture(seed))
        labels = root / "lizard_labels" / "Lizard_Labels"
        (labels / "Labels").mkdir(parents=True, exist_ok=True)
        columns = {
            "inst_map": NUCLEI,
            "id": np.array([[i] for i in LIZARD_CLASSES]),
            "class": np.array([[c] for c in LIZARD_CLASSES.values()]),
            "bbox": np.zeros((4, 4)),
            "centroid": np.zeros((4, 2)),
        }
        savemat(labels / "Labels" / f"{name}.mat", columns, do_compression=True)
        rows.append(f"{name},GlaS,{1 + i % 3}")
    (labels / "info.csv").write_text("\n".join(rows))


def make_glas_lizard(root: Path) -> None:
    """Of the five images of GlaS, Lizard has two, by other names, and one of its own."""
    make_glas_bmp(root / "GlaS")
    make_lizard(root / "Lizard", {"glas_1": 3, "glas_2": 0, "dpath_1": 2, "glas_9": 77})


def make_crag_lizard(root: Path) -> None:
    make_crag(root / "crag")
    make_lizard(root / "lizard", {"crag_5": 11, "crag_6": 10})


def make_consep_mat(root: Path) -> None:
    """Seven nuclei, one of each type, in floating point as MATLAB saves them."""
    ids = np.zeros(SHAPE)
    ids[3:5, 1:15:2] = np.arange(1, 8)
    for split in ("train", "test"):
        name = f"{split}_1"
        write(root / "CoNSeP" / split.capitalize() / "Images" / f"{name}.png", picture(1))
        labels = root / "CoNSeP" / split.capitalize() / "Labels"
        labels.mkdir(parents=True)
        maps = {"inst_map": ids, "type_map": ids, "inst_type": np.arange(1, 8)[:, None]}
        savemat(labels / f"{name}.mat", maps)


def make_bcss(root: Path) -> None:
    """A mask with every code, each on 8 pixels."""
    folder = root / "0_Public-data-Amgad2019_0.25MPP"
    codes = np.minimum(np.arange(12 * 16) // 8, 21).reshape(SHAPE).astype(np.uint8)
    for name in ("TCGA-A1-A0SK-DX1", "TCGA-A1-A0SP-DX1"):
        write(folder / "rgbs_colorNormalized" / f"{name}.png", picture(1))
        write(folder / "masks" / f"{name}.png", codes)


APERIO_SQUARES = ((1, 1, 2), (4, 5, 2), (10, 5, 2), (1, 9, 3))  # x, y, side


def make_monuseg_xml(root: Path) -> None:
    """Four squares an image, and a region of two corners, which is no outline."""

    def region(corners: list[list[float]]) -> str:
        points = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
        return f'<Region Id="1"><Attributes/><Vertices>{points}</Vertices></Region>'

    squares = "".join(region(square(*place)[:-1]) for place in APERIO_SQUARES)
    line = region([[0, 0], [9, 9]])
    text = (
        '<?xml version="1.0"?><Annotations MicronsPerPixel="0.252"><Annotation Id="1"><Regions>'
        f"{line}{squares}</Regions></Annotation></Annotations>"
    )
    train, test = root / "MoNuSeg 2018 Training Data", root / "MoNuSegTestData"
    for images, labels, name in (
        (train / "Tissue Images", train / "Annotations", "TCGA-18-5592-01Z-00-DX1"),
        (train / "Tissue Images", train / "Annotations", "TCGA-38-6178-01Z-00-DX1"),
        (test, test, "TCGA-2Z-A9J9-01A-01-TS1"),
    ):
        write(images / f"{name}.tif", picture(len(name)))
        labels.mkdir(parents=True, exist_ok=True)
        (labels / f"{name}.xml").write_text(text)


def make_tnbc_slides(root: Path) -> None:
    """Two patients: one with ids of nuclei, one with a mask."""
    for name, nuclei in (("01_1", NUCLEI), ("01_2", NUCLEI), ("02_1", (NUCLEI > 0) * 255)):
        folder = root / "TNBC_NucleiSegmentation"
        write(folder / f"Slide_{name[:2]}" / f"{name}.png", picture(int(name[-1])))
        write(folder / f"GT_{name[:2]}" / f"{name}.png", nuclei.astype(np.uint8))


def make_nuinsseg_organs(root: Path) -> None:
    """Two organs; in one image the upper half is vague."""
    vague = np.zeros(SHAPE, np.uint8)
    vague[:6] = 255
    for organ in ("human bladder", "mouse liver"):
        stem = f"{organ.replace(' ', '_')}_01"
        write(root / organ / "tissue images" / f"{stem}.png", picture(len(organ)))
        write(root / organ / "label masks" / f"{stem}.tif", NUCLEI.astype(np.uint16))
    write(root / organ / "vague areas" / "mask binary" / f"{stem}.png", vague)


def make_ebhi_classes(root: Path) -> None:
    for diagnosis in ("Adenocarcinoma", "Low-grade IN"):
        for seed, name in enumerate(("GT2012149-1-400-001", "GT2012150-1-400-001")):
            folder = root / "EBHI-SEG" / diagnosis
            write(folder / "image" / f"{name}.png", picture(seed))
            mask = np.repeat((GLANDS > 0)[..., None] * np.uint8(255), 3, axis=-1)
            write(folder / "label" / f"{name}.png", mask)


HISTOLOGY_TWINS = {
    "glas-glands": make_glas_bmp,
    "glas-lizard": make_glas_lizard,
    "crag": make_crag,
    "crag-glands": make_crag,
    "crag-lizard": make_crag_lizard,
    "lizard": make_lizard,
    "puma": make_puma,
    "puma-10": make_puma,
    "bcss": make_bcss,
    "bcss-5": make_bcss,
    "monuseg": make_monuseg_xml,
    "tnbc": make_tnbc_slides,
    "nuinsseg": make_nuinsseg_organs,
    "ebhi": make_ebhi_classes,
}
"""Name of a dataset -> what writes one. GlaS and CoNSeP by these names lie in other layouts too."""
