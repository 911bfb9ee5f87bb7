"""Tiny volumes in the formats and layouts of real ones."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

RNG = np.random.default_rng(0)
VALUES = RNG.integers(-1000, 3000, (5, 4, 6)).astype(np.int16)
LABELS = np.zeros((5, 4, 6), np.uint8)
LABELS[1, :2, :3], LABELS[3, 2:, 2:] = 1, 2

MHA = """ObjectType = Image
NDims = {dims}
BinaryData = True
BinaryDataByteOrderMSB = {big}
CompressedData = {packed}
TransformMatrix = {matrix}
ElementSpacing = {spacing}
DimSize = {size}
ElementType = {kind}
ElementDataFile = LOCAL
"""
KINDS = {"i2": "MET_SHORT", "u1": "MET_UCHAR", "f4": "MET_FLOAT"}


def write_mha(
    path: Path, volume: np.ndarray, packed=True, spacing="0.3 0.3 0.3", **changes
) -> None:
    entries = {
        "dims": volume.ndim,
        "big": volume.dtype.byteorder == ">",
        "packed": packed,
        "matrix": "1 0 0 0 1 0 0 0 1",
        "spacing": spacing,
        "size": " ".join(map(str, volume.shape[::-1])),
        "kind": KINDS[volume.dtype.str[1:]],
    }
    data = zlib.compress(volume.tobytes()) if packed else volume.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(MHA.format(**entries | changes).encode() + data)


def write_nifti(path: Path, volume: np.ndarray, affine=None, slope=None, intercept=None) -> None:
    import nibabel

    affine = np.diag((-0.3, -0.3, 0.3, 1)) if affine is None else affine
    image = nibabel.Nifti1Image(volume.T, affine)
    image.header.set_slope_inter(slope, intercept)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


WRITERS = {".mha": write_mha, ".nii.gz": write_nifti, ".nii": write_nifti}
NNUNET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "kidney": 2}}


def make_raw(
    root: Path,
    ending=".mha",
    description=NNUNET,
    values=VALUES,
    labels=LABELS,
    cases=("a_2", "a_10"),
) -> Path:
    """Two cases of the same volume."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({"file_ending": ending} | description))
    write = WRITERS[ending]
    for case in cases:
        for number in description["channel_names"]:
            write(root / "imagesTr" / f"{case}_{int(number):04d}{ending}", values)
        write(root / "labelsTr" / f"{case}{ending}", labels)
    return root


def make_toothfairy2(root: Path) -> Path:
    """Two cases as released: jawbones, pharynx, three teeth; a canal, a crown and a sinus."""
    numbers = np.zeros((6, 16, 16), np.uint8)
    numbers[1:5, 10:, :], numbers[1:5, :5, :] = 1, 2
    numbers[2:4, 6:9, 5:11] = 7
    numbers[2, 10:12, 2:4], numbers[2, 10:12, 5:8], numbers[2, 1:3, 2:4] = 31, 48, 28
    numbers[2, 14, 14], numbers[3, 1, 1], numbers[5, 3, 3] = 3, 9, 5
    values = np.where(numbers, 1000, -1000).astype(np.int16)
    folder = root / "Dataset112_ToothFairy2"
    description = {
        "channel_names": {"0": "CBCT"},
        "labels": {"background": 0, "Lower Jawbone": 1, "Upper Jawbone": 2, "Pharynx": 7},
        "numTraining": 2,
    }
    cases = ("ToothFairy2F_001", "ToothFairy2F_002")
    make_raw(folder, ".mha", description, values, numbers, cases)
    return root
