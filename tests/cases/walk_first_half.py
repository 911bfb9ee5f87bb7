"""The first half of the walk, a program of its own that is killed at its end.

    python walk_first_half.py FOLDER

From the sample image to labels that a person corrected and refined and that a workspace keeps.
What the window showed at the end is written to FOLDER (`FirstHalf`), then the file ``ready``; from
then on the program waits to be killed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cases import correct_hand
from cases.walk_window import Window

CROP = np.s_[128:352, 96:320]
TABLES = ("table", "features")
READY, FACTS, STATE, TABLE = "ready", "facts.json", "state.npz", "table.csv"
IMAGE, WORKSPACE = "biopsy.ome.tif", "biopsy.coseg"


class FirstHalf:
    """The steps, in their order; each asserts what a person would see."""

    def __init__(self, window: Window, folder: Path) -> None:
        self.window, self.folder = window, folder
        self.viewer = window.viewer
        self.facts: dict[str, Any] = {}

    def walk(self) -> None:
        self.open_image()
        self.segment()
        self.begin_to_correct()
        before = self.state()
        for step in (
            self.merge,
            self.split,
            self.delete,
            self.add,
            self.outline_object,
            self.reclassify,
            self.review,
            self.outline_region,
            self.paint_region,
        ):
            self.step(step)
        self.undo_and_redo(before)
        self.refine()
        self.keep()

    # -- before correcting ---------------------------------------------------------------------

    def open_image(self) -> None:
        """File > Open Sample; a part of it, as a file with its pixel size, is what we work on."""
        from napari_coseg.core.types import Image
        from napari_coseg.formats.ome_tiff import write_image

        with self.window.step("sample"):
            self.window.choose("file", "Open Sample", "Co-Seg", "Colon tissue")
            self.window.wait_until(lambda: len(self.viewer.layers), "the sample is open")
        (sample,) = self.viewer.layers
        size = tuple(float(value) for value in sample.scale)
        path = self.folder / IMAGE
        write_image(path, Image(sample.data[CROP], "YXC", size, "biopsy"))
        with self.window.step("open"):
            self.viewer.layers.clear()
            (image,) = self.viewer.open(path, plugin="napari")
            assert image.rgb
            assert image.data.shape == sample.data[CROP].shape
        self.image, self.size_um = image, size

    def segment(self) -> None:
        with self.window.step("segment"):
            dock = self.window.dock("Segment")
            self.window.wait_until(
                lambda: dock.image.chosen().pixel_size_um is not None, "the pixel size is read"
            )
            assert dock.image.chosen().pixel_size_um == self.size_um
            assert dock.image.chosen().axes == "YXC"
            said = self.window.job(dock)
            _, self.regions, self.objects = self.viewer.layers
            count = len(np.unique(self.objects.data)) - 1
            assert f"<b>{count:,} objects</b>" in said
            assert "of the area" in said
            assert len(self.objects.features) == count
            assert self.regions.data.shape == self.objects.data.shape == self.image.data.shape[:2]
        assert count >= 12, f"the model finds {count} objects; the walk needs some to work on"
        self.facts["segment says"] = said

    def begin_to_correct(self) -> None:
        with self.window.step("start correcting"):
            self.correct = self.window.dock("Correct")
            assert self.correct.pair.objects is self.objects
            assert self.correct.pair.regions is self.regions
            self.window.click(self.correct.start_button)
            self.window.wait_until(lambda: self.correct.interaction, "the objects are measured")
            assert f"{len(self.table):,} objects." in self.said
            assert "left to review" in self.correct.left_label.text()

    # -- what all corrections share ------------------------------------------------------------

    @property
    def table(self) -> Any:
        return self.correct.session.editor.table

    @property
    def said(self) -> str:
        return str(self.correct.status.text())

    def state(self) -> dict[str, Any]:
        return correct_hand.state(self.correct.interaction)

    def step(self, correction: Any) -> None:
        """One correction: what it returns is undo's word for it, and the table follows."""
        name = correction.__name__.replace("_", " ")
        with self.window.step(name):
            before = self.state()
            changed = correction()
            after = self.state()
            differs = correct_hand.differs(before, after)
            if changed == {"regions"}:  # in which objects may lie or not
                differs -= {"table", "features"}
            assert differs == changed, f"{name}: {differs}; {self.said}"
            self.check_table()
            assert self.correct.undo_button.isEnabled()
            self.check_drawn()

    def check_drawn(self) -> None:
        """The canvas shows the labels, once all pieces are drawn."""
        refresher = self.correct.interaction.display.refresher
        self.window.wait_until(lambda: refresher.is_done, "all is drawn")
        correct_hand.assert_drawn(self.objects)

    def check_table(self) -> None:
        """One row per object, and the region that holds most of it, in table and tooltips."""
        labels, regions = self.objects.data, self.regions.data
        assert self.table["id"].tolist() == np.unique(labels)[1:].tolist()
        for row in self.table.itertuples():
            assert np.bincount(regions[labels == row.id]).argmax() == row.region_id
        features = self.objects.features.set_index("index")
        ours = self.table.set_index("id")
        for column in ("class", "region"):
            assert features[column].loc[ours.index].tolist() == ours[column].tolist()

    def centre(self, object_id: int) -> tuple[float, float]:
        """A pixel of the object near its middle."""
        at = np.argwhere(self.objects.data == object_id)
        nearest = np.argmin(((at - at.mean(axis=0)) ** 2).sum(axis=1))
        return tuple(float(value) for value in at[nearest])

    def inner(self) -> Any:
        """Rows of the objects that lie well inside of the image, largest first."""
        rows, side = self.table, self.objects.data.shape[0]
        low = rows[["centroid_y", "centroid_x"]].min(axis=1) > 16
        high = rows[["centroid_y", "centroid_x"]].max(axis=1) < side - 16
        return rows[low & high].sort_values("area_um2", ascending=False)

    # -- corrections ---------------------------------------------------------------------------

    def merge(self) -> set[str]:
        """A stroke from one object to a near other, over no third."""
        one, other = self.neighbours()
        ends = [self.centre(one), self.centre(other)]
        count = len(self.table)
        self.window.click(self.correct.tools["M"])
        self.window.draw(self.objects, ends)
        assert len(self.table) < count
        values = {int(self.objects.data[int(y), int(x)]) for y, x in ends}
        assert len(values) == 1 and values <= {one, other}, (values, one, other)
        assert "Merge" in self.correct.undo_button.toolTip(), self.said
        return {"labels", "table", "features"}

    def neighbours(self) -> tuple[int, int]:
        """The nearest two with nothing else around their middles, for a stroke has a width."""
        rows = self.inner()
        places = rows[["centroid_y", "centroid_x"]].to_numpy()
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
        apart[np.tril_indices(len(rows))] = np.inf
        for pair in np.argsort(apart, axis=None):
            one, other = (int(rows["id"].iloc[at]) for at in np.divmod(pair, len(rows)))
            ends = np.array([self.centre(one), self.centre(other)], int)
            (top, left), (bottom, right) = ends.min(axis=0) - 4, ends.max(axis=0) + 5
            around = self.objects.data[max(top, 0) : bottom, max(left, 0) : right]
            if set(np.unique(around)) - {0} == {one, other}:
                return one, other
        raise AssertionError("no two objects have a free way between them")

    def split(self) -> set[str]:
        """A line across the largest object."""
        row, count = self.inner().iloc[0], len(self.table)
        x = row["centroid_x"]
        self.window.press("C")
        assert self.correct.tools["C"].isChecked()
        self.window.draw(self.objects, [(row["bbox_y0"] - 3.0, x), (row["bbox_y1"] + 2.0, x)])
        assert len(self.table) > count
        assert self.table.set_index("id").loc[row["id"], "area_um2"] < row["area_um2"]
        return {"labels", "table", "features"}

    def delete(self) -> set[str]:
        """Chosen by a click, taken away by a key."""
        self.lost = self.inner().iloc[3]
        self.lost_mask = self.objects.data == self.lost["id"]
        self.window.press("S")
        self.window.tap(self.objects, self.centre(self.lost["id"]))
        assert self.said == "1 object selected"
        self.window.press("D")
        assert not (self.objects.data == self.lost["id"]).any()
        return {"labels", "table", "features"}

    def add(self) -> set[str]:
        """A click where one is missing: the model grows it again."""
        count = len(self.table)
        self.window.press("A")
        at = np.argwhere(self.lost_mask)
        nearest = np.argmin(((at - at.mean(axis=0)) ** 2).sum(axis=1))
        self.window.tap(self.objects, at[nearest].tolist())
        self.window.wait_until(lambda: len(self.table) > count, "the object is grown")
        grown = self.objects.data == self.objects.data[tuple(at[nearest])]
        overlap = (grown & self.lost_mask).sum() / (grown | self.lost_mask).sum()
        assert overlap > 0.3, overlap
        return {"labels", "table", "features"}

    def outline_object(self) -> set[str]:
        """Drawn where the image has none: the largest empty place."""
        from scipy.ndimage import distance_transform_edt

        empty = np.pad(self.objects.data == 0, 1)
        free = distance_transform_edt(empty)[1:-1, 1:-1]
        y, x = np.unravel_index(free.argmax(), free.shape)
        radius, count = min(8.0, free.max() - 1), len(self.table)
        turns = np.linspace(0, 2 * np.pi, 13)[:-1]
        ring = [(y + radius * np.sin(turn), x + radius * np.cos(turn)) for turn in turns]
        self.window.draw(self.objects, ring)
        assert len(self.table) == count + 1
        assert self.objects.data[y, x] > 0
        return {"labels", "table", "features"}

    def reclassify(self) -> set[str]:
        """The digit of a class, over what is selected."""
        row = self.inner().iloc[1]
        entry = next(e for e in self.correct.session.editor.classes if e.id != row["class_id"])
        self.window.press("S")
        self.window.tap(self.objects, self.centre(row["id"]))
        self.window.press(str(entry.id))
        assert self.table.set_index("id").loc[row["id"], "class"] == entry.name
        assert self.correct.classes.current == entry.id
        return {"table", "features"}

    def review(self) -> set[str]:
        """Mark what is selected as reviewed."""
        (selected,) = self.correct.interaction.display.selected
        left = self.correct.left_label.text()
        self.window.press("R")
        assert self.correct.session.reviewed.ids == {selected}
        state = self.state()
        assert (state["marks"][state["labels"] == selected] > 0).all()
        self.window.wait_until(
            lambda: self.correct.left_label.text() != left, "one less is left to review"
        )
        return {"reviewed", "marks"}

    def outline_region(self) -> set[str]:
        """A square becomes a gland or, where the model has seen one, background."""
        (gland, *_) = self.correct.session.editor.region_classes
        there = (self.regions.data[4:90, 4:90] == gland.id).mean() > 0.5
        self.drawn, self.brushed = (0, gland.id) if there else (gland.id, 0)
        self.give_region(self.drawn)
        self.window.press("W")
        self.window.draw(self.regions, [(4, 4), (4, 90), (90, 90), (90, 4)])
        assert (self.regions.data[8:86, 8:86] == self.drawn).all()
        return {"regions"}

    def paint_region(self) -> set[str]:
        """Napari's own brush, with the other of the two."""
        self.window.click(self.correct.region_brush_button)
        self.regions.brush_size = 12
        self.give_region(self.brushed)
        self.window.draw(self.regions, [(30, 30), (30, 70)])
        assert (self.regions.data[30, 30:70] == self.brushed).all()
        return {"regions"}

    def give_region(self, class_id: int) -> None:
        """Make a class of regions the current one."""
        self.window.click(self.correct.region_classes.button(class_id))
        assert self.correct.region_classes.current == class_id

    def undo_and_redo(self, before: dict[str, Any]) -> None:
        after = self.state()
        with self.window.step("undo all"):
            for _ in range(9):
                self.window.click(self.correct.undo_button)
            assert not self.correct.undo_button.isEnabled()
            correct_hand.assert_same(before, self.state())
            self.check_drawn()
        with self.window.step("redo all"):
            for _ in range(9):
                self.window.click(self.correct.redo_button)
            assert not self.correct.redo_button.isEnabled()
            correct_hand.assert_same(after, self.state())
            self.check_drawn()

    # -- what comes of them --------------------------------------------------------------------

    def refine(self) -> None:
        """The regions that were painted, as a prompt for the objects."""
        before = self.state()
        (reviewed,) = self.correct.session.reviewed.ids
        with self.window.step("refine"):
            dock = self.window.dock("Refine")
            said = self.window.job(dock)
            self.window.wait_until(
                lambda: "Comparing" not in dock.bar.text.text(), "runs are compared"
            )
            said = dock.bar.text.text()
            correct_hand.assert_same(before, self.state())
        self.facts["refine says"] = f"{said} {dock.change.text()}"
        if said.startswith("Nothing changes"):  # as with a model that ignores region prompts
            return
        assert dock.change.text()
        with self.window.step("accept"):
            self.window.click(dock.accept_button)
            assert dock.bar.text.text() == "Accepted."
            after = self.state()
            assert {"table"} <= correct_hand.differs(before, after) <= {"labels", *TABLES}
            np.testing.assert_array_equal(after["labels"] == reviewed, before["labels"] == reviewed)
            assert self.viewer.layers.selection.active is self.objects
            self.check_table()
            assert self.correct.session.undo_name == self.said == "Take a new run"
        self.window.close_dock(dock)

    def keep(self) -> None:
        """A new workspace, and two corrections more, which it keeps by itself."""
        from napari_coseg.widgets.workspace import widget as workspace

        path = self.folder / WORKSPACE
        workspace.ask_new_folder = lambda _: path  # the system's own dialog
        with self.window.step("new workspace"):
            dock = self.window.dock("Workspace")
            assert "Corrected, but not saved in a workspace" in dock.state.text()
            self.window.click(dock.new_button)
            self.window.wait_until(lambda: dock.controller.links, "the labels are kept")
            assert WORKSPACE in dock.name.text()
            assert dock.images.count() == 1
        with self.window.step("correct on"):
            self.correct.interaction.use_tool(None)
            rows = self.inner()
            others = rows[~rows["id"].isin(self.correct.session.reviewed.ids)]["id"]
            for key, object_id in (("D", others.iloc[2]), ("R", others.iloc[4])):
                self.window.press("S")
                self.window.tap(self.objects, self.centre(object_id))
                self.window.press(key)
            assert len(self.correct.session.reviewed.ids) == 2
            (link,) = dock.controller.links.values()
            self.window.wait_until(lambda: not link.writer.state.waiting, "all is saved")
            dock.show_state()
            assert "Saved" in dock.state.text(), dock.state.text()

    # ------------------------------------------------------------------------------------------

    def write(self) -> None:
        """What the second half is compared with."""
        state = self.state()
        arrays = {name: state[name] for name in ("labels", "regions", "marks")}
        np.savez(self.folder / STATE, **arrays)
        state["table"].to_csv(self.folder / TABLE, index=False)
        self.facts["reviewed"] = state["reviewed"]
        self.facts["seconds"] = self.window.seconds
        (self.folder / FACTS).write_text(json.dumps(self.facts), "utf-8")
        (self.folder / READY).touch()


def main(folder: Path) -> None:
    import napari

    half = FirstHalf(Window(napari.Viewer()), folder)
    half.walk()
    half.write()
    half.window.wait_ms(600_000)  # until the test kills it


if __name__ == "__main__":
    main(Path(sys.argv[1]))
