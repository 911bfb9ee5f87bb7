"""Named and coloured segments of a label image, as the formats of radiology list them."""

from __future__ import annotations

from dataclasses import dataclass

from napari_coseg.core.types import LabelClass, Prediction, distinct_color
from napari_coseg.labels.measure.rows import ids_in


@dataclass(frozen=True)
class Segment:
    """One label.

    Parameters
    ----------
    value
        Of its voxels in the label image.
    key
        Unique in its file, and the same in each export: "object 12".
    name
        As shown to people: the class and the id of an object, the class of a region.
    color
        Red, green, blue, each 0 to 255.
    """

    value: int
    key: str
    name: str
    color: tuple[int, int, int]


def object_segments(prediction: Prediction) -> list[Segment]:
    """One for each object, by id.

    Objects have the colours of their classes. Where all are of one class, each has its own, so that
    neighbours differ.
    """
    instances = prediction.instances
    colors = {entry.id: entry.color for entry in instances.classes}
    rows = instances.table[["id", "class", "class_id"]].sort_values("id")
    one_class = rows["class_id"].nunique() < 2
    return [
        Segment(
            int(number),
            f"object {number}",
            f"{name} {number}",
            distinct_color(int(number))
            if one_class or class_id not in colors
            else colors[int(class_id)],
        )
        for number, name, class_id in rows.itertuples(index=False)
    ]


def region_segments(prediction: Prediction) -> list[Segment]:
    """One for each class that occurs, by id."""
    classes = {entry.id: entry for entry in prediction.semantic_classes}
    return [_region(value, classes.get(value)) for value in ids_in(prediction.semantic).tolist()]


def _region(value: int, known: LabelClass | None) -> Segment:
    name = known.name if known else f"class {value}"
    return Segment(value, f"region {value}", name, known.color if known else distinct_color(value))
