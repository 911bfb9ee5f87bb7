"""ToothFairy2: jawbones, pharynx and teeth in 480 cone-beam CTs, isotropic at 0.3 mm.

Bolelli et al., "Segmenting maxillofacial structures in CBCT volumes", CVPR 2025. An nnU-Net raw
folder of .mha volumes, ``Dataset112_ToothFairy2``; `nnunet_raw` describes the slicing. As in the
Co-Seg++ paper (section 4.1.1, tables 2 and 4), regions are lower jawbone, upper jawbone and
pharynx, objects are lower and upper teeth. The paper does not define its slices; here they are
axial. A tooth keeps its FDI number in all slices and is one object, also where a slice cuts several
of its roots.

Canals, sinuses, bridges, crowns and implants are background: the paper has no class for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Layout
from napari_coseg.datasets.nnunet_json import VolumeLabels, read_description
from napari_coseg.datasets.nnunet_raw import NnunetRaw, described

REGION_CLASSES = (
    LabelClass(1, "lower jawbone", (226, 178, 104)),
    LabelClass(2, "upper jawbone", (204, 120, 92)),
    LabelClass(3, "pharynx", (84, 156, 214)),
)
TOOTH_CLASSES = (
    LabelClass(1, "lower tooth", (96, 190, 120)),
    LabelClass(2, "upper tooth", (190, 110, 200)),
)
FILE_REGIONS = {1: 1, 2: 2, 7: 3}
OTHER_STRUCTURES = frozenset({3, 4, 5, 6, 8, 9, 10})
"""Alveolar canals, maxillary sinuses, bridge, crown, implant."""
FILE_TEETH = {
    10 * quadrant + tooth: 2 if quadrant < 3 else 1
    for quadrant in (1, 2, 3, 4)
    for tooth in range(1, 9)
}
"""FDI numbers: quadrants 1 and 2 are the upper teeth, 3 and 4 the lower."""
WINDOW_HU = (-1000.0, 3000.0)
"""From air to enamel, 16 units per grey level. Cone-beam CT is not calibrated to true HU."""


@dataclass(frozen=True)
class ToothFairy2(NnunetRaw):
    """Axial slices with jawbones, pharynx and teeth."""

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open `root`, or the only ``Dataset..._ToothFairy2`` folder within it."""
        if not (root / "dataset.json").is_file():
            inside = sorted(root.glob("Dataset*_ToothFairy2"))
            if len(inside) > 1:
                raise DatasetError(f"{root} holds {len(inside)} ToothFairy2 folders; name one")
            root = inside[0] if inside else root
        from_json = described(root, read_description(root / "dataset.json"))
        return cls(
            name="toothfairy2",
            layout=Layout("imagesTr", "labelsTr", "labelsTr", "labelsTr"),
            semantic_classes=REGION_CLASSES,
            instance_classes=TOOTH_CLASSES,
            labels=VolumeLabels(FILE_REGIONS, FILE_TEETH, OTHER_STRUCTURES),
            window_hu=WINDOW_HU,
            **(from_json | {"channels": ("CBCT",)}),
        )
