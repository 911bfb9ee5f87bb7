"""The second half of the walk: another program opens what the first one left, and takes it away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cases import walk_first_half as first
from cases.walk_window import Window
from napari_coseg.core.types import Prediction
from napari_coseg.formats.ome_tiff import read_notes
from napari_coseg.formats.read_geojson import read_geojson
from napari_coseg.formats.read_ome_zarr import read_ome_zarr
from napari_coseg.formats.registry import FORMATS, output_paths
from napari_coseg.images.readers.registry import read_image
from napari_coseg.labels.measure.summary import ALL
from napari_coseg.workspace import recent

SMALL_PX = 50
"""Of objects no larger than this, an outline may lose more than a hundredth."""


class SecondHalf:
    """The steps, in their order; each asserts what a person would see."""

    def __init__(self, window: Window, folder: Path) -> None:
        self.window, self.folder = window, folder
        self.viewer = window.viewer
        self.facts = json.loads((folder / first.FACTS).read_text("utf-8"))
        self.expected = dict(np.load(folder / first.STATE))
        self.table = pd.read_csv(folder / first.TABLE)

    def walk(self) -> None:
        self.resume()
        self.correct_again()
        self.measure()
        self.export()
        self.read_back()
        self.save()
        self.leave()

    def resume(self) -> None:
        """The dock offers what was never closed; image and labels are as they were."""
        with self.window.step("resume"):
            self.workspace = dock = self.window.dock("Workspace")
            assert first.WORKSPACE in dock.resume_button.text()
            self.window.click(dock.resume_button)
            self.window.wait_until(
                lambda: dock.images.count() and not dock.controller.busy, "the workspace is open"
            )
            assert dock.images.item(0).text().startswith("○")
            self.window.click(dock.show_button)
            self.window.wait_until(lambda: dock.controller.links, "the image is open")
            assert dock.images.item(0).text().startswith("●")
            image, regions, objects = self.viewer.layers
            np.testing.assert_array_equal(
                image.data, np.asarray(read_image(self.folder / first.IMAGE).data)
            )
            self._as_left(objects, regions)
        self.image, self.regions, self.objects = image, regions, objects

    def _as_left(self, objects: Any, regions: Any) -> None:
        for layer, name in ((objects, "labels"), (regions, "regions")):
            np.testing.assert_array_equal(layer.data, self.expected[name])
            assert layer.data.dtype == self.expected[name].dtype
            np.testing.assert_array_equal(layer.scale, self.image_scale)

    @property
    def image_scale(self) -> Any:
        return read_image(self.folder / first.IMAGE).pixel_size_um

    def correct_again(self) -> None:
        """Table and marks are what they were, and one can go on."""
        with self.window.step("correct again"):
            dock = self.window.dock("Correct")
            self.window.click(dock.start_button)
            self.window.wait_until(lambda: dock.interaction, "the objects are measured")
            sure = "class_probability"  # of the file, whose digits pandas reads nearly exactly
            table = dock.session.editor.table
            pd.testing.assert_frame_equal(
                table.drop(columns=sure), self.table.drop(columns=sure), check_exact=True
            )
            np.testing.assert_allclose(table[sure], self.table[sure], rtol=1e-9)
            assert json.loads(json.dumps(dock.session.reviewed.as_json())) == self.facts["reviewed"]
            np.testing.assert_array_equal(
                dock.interaction.display.marks_layer.data, self.expected["marks"]
            )
            self.window.click(dock.start_button)  # which says "Finish" now
            assert [layer.name for layer in self.viewer.layers] == [
                layer.name for layer in (self.image, self.regions, self.objects)
            ]
        self.window.close_dock(dock)

    def measure(self) -> None:
        """Every object has a row; a row shows its object, and a click on an object its row."""
        with self.window.step("measure"):
            self.measuring = dock = self.window.dock("Measure")
            said = self.window.job(dock)
            count = len(self.table)
            assert f"<b>{count:,} objects</b>" in said
            assert dock.objects["id"].tolist() == self.table["id"].tolist()
            for column in ("area_um2", "class", "region"):
                assert dock.objects[column].tolist() == self.table[column].tolist(), column
            assert dock.table.rows.rowCount() == count
            everything = dock.summary[(dock.summary["region_id"] == ALL)]
            everything = everything[everything["class_id"] == ALL]
            assert everything["objects"].tolist() == [count]
            dock.table.selectRow(3)
            self.window.wait_ms(20)
            assert dock.selected_ids == [int(dock.objects["id"].iloc[3])]
            assert self.objects.selected_label == dock.selected_ids[0]
            assert dock.selection_text.text() == f"1 of {count:,} selected"
        with self.window.step("plot"):
            dock.tabs.setCurrentWidget(dock.plots)
        with self.window.step("summary"):
            dock.tabs.setCurrentWidget(dock.summary_table)
        self.window.close_dock(dock)

    def export(self) -> None:
        """All that the registry knows and this image, which is of no patient, has; by the dock."""
        self.files = self.folder / "exported"
        self.files.mkdir()
        self.viewer.reset_view()  # a row that was chosen has moved it
        with self.window.step("export"):
            dock = self.window.dock("Export")
            assert list(dock.formats) == list(FORMATS)
            flat = [k for k, found in FORMATS.items() if not found.of_volumes and k != "dicom-seg"]
            for key, box in dock.formats.items():
                box.setChecked(key in flat)
            dock.folder_edit.setText(str(self.files))
            self.name = dock.name_edit.text()
            assert self.name == "biopsy"
            expected = output_paths(self.files, self.name, flat)
            said = self.window.job(dock)
            assert f"<b>{len(self.table):,} objects, {len(expected)} files</b>" in said
            assert sorted(self.files.iterdir()) == sorted(expected)
        self.window.close_dock(dock)

    # -- files ---------------------------------------------------------------------------------

    def read_back(self) -> None:
        """Rasters are equal by the pixel, outlines but for a hundredth."""
        with self.window.step("read back"):
            self._ome_tiff()
            self._ome_zarr()
            self._geojson(self.files / f"{self.name}.geojson")
            self._nifti()
            table = pd.read_csv(self.files / f"{self.name}_objects.csv")
            assert table["id"].tolist() == self.table["id"].tolist()
            np.testing.assert_allclose(table["area_um2"], self.table["area_um2"])
            regions = pd.read_csv(self.files / f"{self.name}_regions.csv")
            assert regions["objects"].sum() == len(self.table)
            coco = json.loads((self.files / f"{self.name}_coco.json").read_text("utf-8"))
            ids = [one["object_id"] for one in coco["annotations"] if "object_id" in one]
            assert sorted(ids) == self.table["id"].tolist()
            overlay = read_image(self.files / f"{self.name}_overlay.png")
            assert np.all(np.array(overlay.spatial_shape) >= self.objects.data.shape)

    def _ome_tiff(self) -> None:
        for kind, name in (("objects", "labels"), ("regions", "regions")):
            path = self.files / f"{self.name}_{kind}.ome.tif"
            read = read_image(path)
            np.testing.assert_array_equal(np.asarray(read.data), self.expected[name])
            assert read.pixel_size_um == self.image_scale
            notes = read_notes(path)
            assert notes.classes == self._classes(kind)
            assert notes.provenance["model"]

    def _ome_zarr(self) -> None:
        path = self.files / f"{self.name}.ome.zarr"
        read = read_ome_zarr(path)
        self._same_pixels(read)
        assert read.pixel_size_um == self.image_scale
        assert read.semantic_classes == self._classes("regions")
        assert set(read.instances.classes) <= set(self._classes("objects"))
        assert read.instances.table["class"].tolist() == self.table["class"].tolist()
        import zarr

        image = zarr.open_group(path, mode="r")["0"][:]
        np.testing.assert_array_equal(np.moveaxis(image, 0, -1), self.image.data)

    def _geojson(self, path: Path) -> None:
        read = read_geojson(path)
        labels, ours = read.instances.labels, self.expected["labels"]
        assert labels.shape == ours.shape
        for object_id in np.unique(ours)[1:]:
            there, here = labels == object_id, ours == object_id
            if here.sum() > SMALL_PX:
                overlap = (there & here).sum() / (there | here).sum()
                assert overlap >= 0.99, f"object {object_id} of {path.name}: {overlap:.3f}"
            else:
                assert there.any(), f"object {object_id} of {path.name} is gone"
        assert (read.semantic == self.expected["regions"]).mean() > 0.99
        assert read.instances.table["class"].tolist() == self.table["class"].tolist()

    def _nifti(self) -> None:
        import nibabel

        for kind, name in (("objects", "labels"), ("regions", "regions")):
            volume = nibabel.load(self.files / f"{self.name}_{kind}.nii.gz")
            np.testing.assert_array_equal(
                np.asarray(volume.dataobj).T.reshape(self.expected[name].shape),
                self.expected[name],
            )

    def _same_pixels(self, read: Prediction) -> None:
        np.testing.assert_array_equal(read.instances.labels, self.expected["labels"])
        np.testing.assert_array_equal(read.semantic, self.expected["regions"])

    def _classes(self, kind: str) -> Any:
        from napari_coseg.widgets import outputs

        return outputs.classes_of(self.objects if kind == "objects" else self.regions)

    def save(self) -> None:
        """Napari's own File > Save, of the chosen layers."""
        with self.window.step("save"):
            self.viewer.layers.selection = {self.regions, self.objects}
            path = self.folder / "saved.geojson"
            self.viewer.layers.save(str(path), selected=True, plugin="napari-coseg")
            self._geojson(path)

    def leave(self) -> None:
        """The workspace is closed, and offered no longer as one that was left."""
        with self.window.step("close workspace"):
            self.window.front(self.workspace)
            self.window.click(self.workspace.close_button)
            self.window.wait_until(
                lambda: not (self.workspace.controller.workspace or self.workspace.controller.busy),
                "the workspace is closed",
            )
            assert not recent.unfinished()
