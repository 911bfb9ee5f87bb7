"""Where the voxels of a MetaImage or NRRD file lie, and how they are packed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MAX_HEADER_BYTES = 2**24
NRRD_PACKINGS = {"raw": "none", "gzip": "gzip", "gz": "gzip"}


@dataclass(frozen=True)
class TextHeader:
    """Fields of a MetaImage or NRRD header, in lower case, and where its voxels lie."""

    fields: dict[str, str]
    data_file: Path
    start: int
    packing: str
    is_big_endian: bool


def read_text_header(path: Path) -> TextHeader:
    """Read and check the fields; `ValueError` for what is not read, or would be read elsewhere."""
    is_nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "elementdatafile" not in fields:
            line = file.readline(4096).decode("latin-1").strip()
            key, equals, value = line.partition(":" if is_nrrd else "=")
            if is_nrrd and not line:
                break
            if file.tell() > MAX_HEADER_BYTES or not (equals or is_nrrd):
                raise ValueError("it has no MetaImage header of lines 'key = value'")
            fields[key.strip().lower()] = value.strip()
        start = file.tell()
    name = fields.get("elementdatafile") or fields.get("data file") or fields.get("datafile")
    if name not in (None, "LOCAL"):
        if Path(name).name != name or name.split()[0] == "LIST" or "%" in name:
            raise ValueError(f"its voxels lie in another file, {name!r}, which is not beside it")
        path, start = path.with_name(name), 0
    is_true = {key for key, value in fields.items() if value.lower() in ("true", "1")}
    packing = "zlib" if "compresseddata" in is_true else "none"
    if is_nrrd:
        packing = NRRD_PACKINGS.get(fields.get("encoding", "raw").lower(), "")
    skipped = [fields.get(key, "0") for key in ("line skip", "byte skip", "headersize")]
    is_text = fields.get("binarydata", "true").lower() in ("false", "0")
    if not packing or is_text or any(count != "0" for count in skipped):
        raise ValueError(
            "its voxels are stored in a way that is not read; save it again as .nii.gz"
        )
    if re.match("MET_U?LONG(?!_LONG)", fields.get("elementtype", "")):
        raise ValueError("MET_LONG has 4 bytes in some files and 8 in others; save it as MET_INT")
    big = bool(is_true & {"binarydatabyteordermsb", "elementbyteordermsb"})
    return TextHeader(fields, path, start, packing, big or fields.get("endian") == "big")
