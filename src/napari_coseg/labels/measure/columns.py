"""Titles, units and descriptions of the columns of measured tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column as shown to the user.

    Parameters
    ----------
    words
        Short, for a header.
    unit
        Empty if it has none.
    about
        One sentence.
    """

    words: str
    unit: str = ""
    about: str = ""

    @property
    def title(self) -> str:
        return f"{self.words} ({self.unit})" if self.unit else self.words


_DIRECTIONS = {
    "z": "Centre of the object in the world; in a patient towards the head",
    "y": "Centre of the object in the world; in a patient towards the back",
    "x": "Centre of the object in the world; in a patient towards the left",
}

COLUMNS: dict[str, Column] = {
    "id": Column("Id", "", "Value of the object in the labels"),
    "class": Column("Class", "", "Type of the object"),
    "class_id": Column("Class id"),
    "class_probability": Column("Probability", "", "Of the class, as the model or a person said"),
    "region": Column("Region", "", "The one that holds most of the object's pixels"),
    "region_id": Column("Region id"),
    "area_um2": Column("Area", "µm²", "Of a stack: the largest cross section"),
    "volume_um3": Column("Volume", "µm³"),
    "volume_mm3": Column("Volume", "mm³"),
    **{
        f"extent_{axis}_mm": Column(f"Extent {axis}", "mm", "Of the box along the volume's axes")
        for axis in "zyx"
    },
    "perimeter_um": Column("Perimeter", "µm", "By Crofton's formula, holes included"),
    "circularity": Column("Circularity", "", "4 π area / perimeter²: 1 is a disc"),
    "solidity": Column("Solidity", "", "Area over that of the convex hull: 1 has no dents"),
    "eccentricity": Column("Eccentricity", "", "Of the ellipse of equal moments: 0 is a circle"),
    "equivalent_diameter_um": Column("Diameter", "µm", "Of the ball of equal volume"),
    "major_axis_um": Column("Major axis", "µm", "Of the ellipse of equal moments"),
    "middle_axis_um": Column("Middle axis", "µm", "Of the ellipsoid of equal moments"),
    "minor_axis_um": Column("Minor axis", "µm", "Of the ellipse of equal moments"),
    "nearest_um": Column("Nearest object", "µm", "Distance of the two centres"),
    "nearest_same_class_um": Column("Nearest of class", "µm", "Distance of the two centres"),
    "region_border_um": Column(
        "Region border", "µm", "From the centre to the nearest place where two regions meet"
    ),
    "centroid_z": Column("Centre z", "px"),
    "centroid_y": Column("Centre y", "px"),
    "centroid_x": Column("Centre x", "px"),
    **{
        f"world_{axis}_{unit}": Column(f"World {axis}", unit.replace("u", "µ"), about)
        for unit in ("um", "mm")
        for axis, about in _DIRECTIONS.items()
    },
    "objects": Column("Objects", "", "Whose pixels lie mostly in the region"),
    "objects_per_mm2": Column("Per mm²", "", "Objects an area of the region"),
    "objects_per_mm3": Column("Per mm³", "", "Objects a volume of the region"),
    "share_of_objects": Column("Share", "", "Part of the region's objects that are of this class"),
    "area_fraction": Column("Covered", "", "Part of the region's area under these objects"),
    "volume_fraction": Column("Covered", "", "Part of the region's volume in these objects"),
    "mean_area_um2": Column("Mean area", "µm²", "Of the objects"),
    "mean_volume_um3": Column("Mean volume", "µm³", "Of the objects"),
    "region_area_um2": Column("Region area", "µm²"),
    "region_volume_um3": Column("Region volume", "µm³"),
    "region_fraction": Column("Of the image", "", "The region's part of the image"),
}

_STATISTICS = {"_mean": "mean", "_std": "std"}


def column(name: str) -> Column:
    """Title, unit and description of a column; of an unknown one the name in words."""
    known = COLUMNS.get(name)
    if known is not None:
        return known
    for ending, words in _STATISTICS.items():
        if name.endswith(ending):
            measured = name.removesuffix(ending)
            unit = "OD" if measured.endswith("_od") else ""
            of_what = _in_words(measured.removesuffix("_od"))
            about = "Optical density, to base 10" if unit else "Values as stored"
            return Column(f"{of_what} {words}", unit, about)
    return Column(_in_words(name))


def _in_words(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
