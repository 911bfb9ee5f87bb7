"""The command line: files read and written, options, error messages, exit codes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile

from cases.stub_models import StubModel, disc_picture, stub_card
from cases.volume_twins import write_mha
from napari_coseg import __version__
from napari_coseg.cli import demo
from napari_coseg.cli.main import COMMANDS, main
from napari_coseg.cli.progress import ProgressLine
from napari_coseg.core.errors import CheckpointError
from napari_coseg.datasets.registry import DATASETS
from napari_coseg.images.readers.registry import read_image
from napari_coseg.inference import loading

NAMES = ("_regions.ome.tif", "_objects.ome.tif", "_objects.csv", "_overlay.png")


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    """Return the stub for all weights; missing files and devices remain errors."""
    asked = []

    def load_model(source="default", device="auto", adapter=None):
        asked.append((str(source), device))
        if str(source) != "default":
            loading.weights_path(source)
        loading.choose_device(device)
        return StubModel()

    monkeypatch.setattr("napari_coseg.inference.loading.load_any_family", load_model)
    return asked


@pytest.fixture
def picture(tmp_path):
    image, labels = disc_picture((80, 96), [(20, 20), (50, 60)])
    PIL.Image.fromarray(image).save(tmp_path / "slide.png")
    return tmp_path / "slide.png", labels


def test_segment_writes_labels_table_and_overlay_beside_the_image(picture, capsys):
    path, labels = picture
    assert main(["segment", str(path), "--pixel-size-um", "0.5"]) == 0
    printed = capsys.readouterr()
    files = [path.with_name(f"slide{ending}") for ending in NAMES]
    assert printed.out.split() == [str(file) for file in files]
    assert "slide.png: 100%" in printed.err
    objects = read_image(files[1])
    np.testing.assert_array_equal(objects.data > 0, labels > 0)
    assert objects.pixel_size_um == pytest.approx((0.5, 0.5))
    assert pd.read_csv(files[2])["class"].tolist() == ["blue", "red"]
    assert PIL.Image.open(files[3]).size[0] == 960


def test_segment_takes_many_options(tmp_path):
    image, _ = disc_picture((80, 96), [(20, 20), (50, 60)])
    np.save(tmp_path / "c.npy", np.moveaxis(image, -1, 0))
    options = ["--axes", "CYX", "--channels", "0,1,2", "--tile-size", "64", "--batch-size", "2"]
    options += ["--set", "halo_px=16", "--set", "test_time_augmentation=true", "--device", "cpu"]
    options += ["--output-dir", str(tmp_path / "out"), "--format", "ome-tiff"]
    options += ["--pixel-size-um", "0.5"]
    assert main(["segment", str(tmp_path / "c.npy"), *options]) == 0
    provenance = provenance_of(tmp_path / "out" / "c_objects.ome.tif")
    assert provenance["tile_size_px"] == 64
    assert provenance["settings"]["test_time_augmentation"] is True


# values of the image: 0 Hounsfield units around a disc of 1000 in a frame of -3000 and 9000
CT_WINDOWS = {
    "as asked": (["--window", "-1000", "1000"], None, "window from -1000 to 1000"),
    "by name": (["--window-name", "bone"], None, "window from -500 to 1500 (bone)"),
    "as set": (["--set", "window=-1000,1000"], None, "window from -1000 to 1000"),
    "the card's": ([], (-500, 500), "window from -500 to 500"),
    "asked over the card's": (["--window", "0", "9"], (-500, 500), "window from 0 to 9"),
    "none": ([], None, "stretched from -3000 to 9000 (percentiles (0.1, 99.9))"),
}


@pytest.mark.parametrize(("options", "of_card", "rule"), CT_WINDOWS.values(), ids=CT_WINDOWS)
def test_a_raw_volume_is_cut_to_a_window(tmp_path, monkeypatch, options, of_card, rule):
    values = np.zeros((2, 80, 96), np.int16)
    values[:, :2], values[:, -2:], values[:, 30:50, 30:50] = -3000, 9000, 1000
    write_mha(tmp_path / "ct.mha", values, spacing="0.0005 0.0005 0.0005")
    card = stub_card(normalisation={"window": of_card})
    monkeypatch.setattr(loading, "load_any_family", lambda *_, **__: StubModel(card))
    assert main(["segment", str(tmp_path / "ct.mha"), *options]) == 0
    provenance = provenance_of(tmp_path / "ct_objects.ome.tif")
    assert provenance["intensity"] == rule
    assert PIL.Image.open(tmp_path / "ct_overlay.png").size[0] == 960


def test_pictures_of_8_bits_need_no_window(picture, monkeypatch):
    card = stub_card(normalisation={"window": (-500, 500)})
    monkeypatch.setattr(loading, "load_any_family", lambda *_, **__: StubModel(card))
    assert main(["segment", str(picture[0]), "--pixel-size-um", "0.5"]) == 0
    provenance = provenance_of(picture[0].with_name("slide_objects.ome.tif"))
    assert (provenance["intensity"], provenance["window"]) == ("8 bits, as they are", None)


def provenance_of(path):
    with tifffile.TiffFile(path) as file:
        xml = tifffile.xml2dict(file.ome_metadata)
    entries = xml["OME"]["StructuredAnnotations"]["MapAnnotation"]["Value"]["M"]
    return json.loads(next(e["value"] for e in entries if e["K"] == "napari-coseg"))


def test_segment_continues_after_a_bad_image_and_exits_with_2(picture, capsys):
    path, _ = picture
    bad = path.with_name("bad.png")
    bad.write_bytes(b"no picture")
    assert main(["segment", str(bad), str(path), "--pixel-size-um", "0.5"]) == 2
    printed = capsys.readouterr()
    assert path.with_name("slide_objects.csv").exists()
    assert "bad.png cannot be read as a picture" in printed.err
    assert "1 of 2 images failed" in printed.err


def test_existing_results_are_kept_without_overwrite(picture, capsys):
    path, _ = picture
    table = path.with_name("slide_objects.csv")
    table.write_text("mine")
    assert main(["segment", str(path)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert table.read_text() == "mine"
    assert main(["segment", str(path), "--overwrite", "--pixel-size-um", "0.5"]) == 0
    assert table.read_text() != "mine"


MISTAKES = [
    pytest.param(["segment", "gone.png"], "there is no image file gone.png", id="no image"),
    pytest.param(["segment", "a.png", "--model", "m.pt"], "no weights file", id="no model"),
    pytest.param(["segment", "a.png", "--device", "gpu7"], "is not available", id="device"),
    pytest.param(["segment", "a.png", "--format", "pdf"], "'pdf' is not known", id="format"),
    pytest.param(["segment", "a.png", "--set", "halo=1"], "did you mean 'halo_px'", id="setting"),
    pytest.param(["segment", "a.png", "--tile-size", "3"], "tile_size_px", id="tile size"),
    pytest.param(["segment", "a.png", "--window", "5", "1"], "lower end of a window", id="window"),
    pytest.param(["segment", "a.png", "a.tif"], "2 of the images are called 'a'", id="equal names"),
    pytest.param(["models", "info", "m.safetensors"], "no weights file", id="info of nothing"),
    pytest.param(
        ["evaluate", "default", "--dataset", "x", "--root", "."], "'x' is not known", id="dataset"
    ),
    pytest.param(["train", "x", "--data", "."], "there is no recipe 'x'", id="recipe"),
    pytest.param(["models", "import", "gone.pth"], "gone.pth", id="import of nothing"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_user_error_is_one_line_and_exit_code_2(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("napari-coseg: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


UNPARSABLE = [
    [],
    ["fly"],
    ["segment"],
    ["segment", "a", "--set", "b"],
    ["segment", "a", "--pixel-size-um", "small"],
    ["segment", "a", "--channels", "red"],
]


@pytest.mark.parametrize("arguments", UNPARSABLE, ids=" ".join)
def test_unparsable_arguments_show_the_usage_and_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: napari-coseg" in capsys.readouterr().err


def test_a_bug_shows_its_traceback(picture, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("napari_coseg.inference.run.segment", broken)
    with pytest.raises(ZeroDivisionError):
        main(["segment", str(picture[0]), "--pixel-size-um", "0.5"])


def test_an_interrupt_exits_with_130(picture, monkeypatch, capsys):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_coseg.inference.run.segment", interrupted)
    assert main(["segment", str(picture[0]), "--pixel-size-um", "0.5"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["models", "import"]])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert "usage: napari-coseg" in capsys.readouterr().out


def test_it_runs_as_a_program():
    command = [sys.executable, "-m", "napari_coseg.cli.main", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"napari-coseg {__version__}"


def test_demo_writes_a_real_image_and_its_results(tmp_path, capsys):
    arguments = ["demo", "--output-dir", str(tmp_path), "--no-window"]
    for _ in range(2):  # a second demo replaces the first
        assert main(arguments) == 0
    files = [tmp_path / f"colon{ending}" for ending in (".ome.tif", *NAMES)]
    assert capsys.readouterr().out.split() == [str(file) for file in files] * 2
    shown, regions = read_image(files[0]), read_image(files[1])
    assert shown.axes == "YXC"
    assert shown.spatial_shape == regions.spatial_shape == (512, 512)
    assert shown.pixel_size_um == pytest.approx(regions.pixel_size_um)


def test_demo_of_a_volume_takes_the_model_for_volumes(tmp_path, monkeypatch):
    taken = []

    def load_model(name, device, adapter):
        taken.append(name)
        return StubModel(stub_card(pixel_size_um=650.0))

    monkeypatch.setattr("napari_coseg.inference.loading.load_any_family", load_model)
    assert main(["demo", "--volume", "--output-dir", str(tmp_path), "--no-window"]) == 0
    assert taken == ["cbct-synthetic"]
    shown = read_image(tmp_path / "synthetic-cbct.ome.tif")
    assert shown.spatial_shape == read_image(tmp_path / f"synthetic-cbct{NAMES[0]}").spatial_shape
    assert shown.pixel_size_um == pytest.approx((650.0,) * 3)


def test_demo_opens_the_window_with_the_files(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(demo, "has_window", lambda: True)

    def run(command, check):
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(demo.subprocess, "run", run)
    assert main(["demo", "--output-dir", str(tmp_path)]) == 0
    (command,) = started
    assert command[:3] == [sys.executable, "-m", "napari_coseg.widgets.show"]
    endings = (".ome.tif", NAMES[0])
    assert command[3:] == [str(tmp_path / f"colon{ending}") for ending in endings]


def test_models_list_and_info_without_weights_say_so(monkeypatch, capsys):
    def missing(source="default"):
        raise CheckpointError("the default weights are missing")

    monkeypatch.setattr(loading, "weights_path", missing)
    assert main(["models", "list"]) == 0
    printed = capsys.readouterr().out
    assert "not installed: the default weights are missing" in printed
    assert "coseg-plus" in printed


def test_models_info_shows_the_card(tmp_path, monkeypatch, capsys):
    (tmp_path / "m.safetensors").write_bytes(b"x")
    card = stub_card(licence="CC0", notes="for tests")
    monkeypatch.setattr("napari_coseg.models.checkpoints.native.read_card", lambda path: card)
    assert main(["models", "info", str(tmp_path / "m.safetensors")]) == 0
    printed = capsys.readouterr().out
    for text in ("discs", "tissue", "blue, red", "0.5 um", "CC0", "for tests"):
        assert text in printed
    assert main(["models", "info", str(tmp_path / "m.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "discs"


@pytest.fixture
def dataset(tmp_path):
    """A folder dataset that the stub predicts exactly, except for one extra disc in one image."""
    classes = [
        {"id": 7, "name": "Red", "color": [1, 2, 3]},
        {"id": 9, "name": "blue", "color": [4, 5, 6]},
    ]
    description = {
        "pixel_size_um": 0.5,
        "semantic_classes": [{"id": 3, "name": "tissue", "color": [7, 8, 9]}],
        "instance_classes": classes,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    for folder in ("images", "regions", "objects", "object_classes"):
        (tmp_path / folder).mkdir()
    for i, centres in enumerate(([(20, 20), (20, 60)], [(20, 20), (60, 60), (20, 60)])):
        image, labels = disc_picture((96, 96), centres, tissue=(slice(0, 90), slice(0, 80)))
        truth = np.where(labels == 3, 0, labels)
        regions = np.zeros((96, 96), np.uint8)
        regions[:90, :80] = 3
        types = np.array([0, 9, 7], np.uint8)[truth]
        for folder, array in (
            ("images", image),
            ("regions", regions),
            ("objects", truth.astype(np.uint16)),
            ("object_classes", types),
        ):
            PIL.Image.fromarray(array).save(tmp_path / folder / f"s{i}.png")
    return tmp_path


def test_evaluate_prints_means_and_writes_all_scores(dataset, tmp_path, capsys):
    output = tmp_path / "scores.csv"
    arguments = ["evaluate", "default", "--dataset", "folder", "--root", str(dataset)]
    arguments += ["--output", str(output), "--set", "min_region_area_um2=0"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "(pooled)" in printed
    assert str(output) in printed
    table = pd.read_csv(output).set_index(["task", "class", "image", "metric"])["value"]
    assert table["objects", "all", "s0", "PQ"] == pytest.approx(1)
    assert table["objects", "all", "s1", "PQ"] == pytest.approx(2 / 2.5)
    assert table["objects", "all", "(mean)", "PQ"] == pytest.approx(0.9)
    assert table["objects", "all", "(pooled)", "PQ"] == pytest.approx(4 / 4.5)
    assert table["objects", "all", "s1", "AJI"] == pytest.approx(2 / 3)
    assert table["objects", "blue", "s1", "PQ"] == pytest.approx(1 / 1.5)
    assert table["objects", "red", "s1", "PQ"] == pytest.approx(1)
    assert table["regions", "tissue", "s0", "Dice"] == pytest.approx(1)
    assert table["regions", "tissue", "(pooled)", "IoU"] == pytest.approx(1)


def test_evaluate_scores_test_images_by_default(dataset, capsys):
    for split in ("test", "train"):
        for folder in ("images", "regions", "objects", "object_classes"):
            shutil.copytree(dataset / folder, dataset / split / folder)
    shutil.rmtree(dataset / "images")
    (dataset / "train/images/s1.png").unlink()
    arguments = ["evaluate", "default", "--dataset", "folder", "--root", str(dataset)]
    assert main(arguments) == 0
    line = "folder: scored on the split 'test', 2 images (other splits for --split: train)"
    assert line in capsys.readouterr().out
    assert main([*arguments, "--split", "train"]) == 0
    assert "folder: scored on the split 'train', 1 image\n" in capsys.readouterr().out


def test_evaluate_names_every_dataset_in_its_help(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    names = capsys.readouterr().out.split("--dataset DATASET")[-1].split("--root")[0]
    assert set(DATASETS) <= set(re.split(r"[\s,]+", re.sub(r"-\n\s*", "-", names)))


def test_evaluate_refuses_a_dataset_without_labels(dataset, capsys):
    for folder in ("regions", "objects", "object_classes"):
        (dataset / folder).rename(dataset / f"no {folder}")
    assert main(["evaluate", "default", "--dataset", "folder", "--root", str(dataset)]) == 2
    assert "no labels to compare 'discs' with" in capsys.readouterr().err


def test_train_passes_its_arguments_and_prints_the_weights(tmp_path, monkeypatch, capsys):
    called = {}

    def train_recipe(recipe, data_root, output_dir, validate, **options):
        called.update(options, recipe=recipe.name, data=data_root, output=output_dir)
        return output_dir / "w.safetensors"

    monkeypatch.setattr("napari_coseg.evaluation.train.train_recipe", train_recipe)
    arguments = ["train", "colon-default", "--data", str(tmp_path), "--device", "cpu"]
    arguments += ["--output", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "run" / "w.safetensors")]
    assert called["recipe"] == "colon-default"
    assert (called["device"], called["output"]) == ("cpu", tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state").write_text("")
    assert main(arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0


def test_the_progress_line_is_redrawn_on_a_terminal_and_appended_to_a_log():
    class Stream(list):
        def __init__(self, terminal):
            self.isatty = lambda: terminal

        def write(self, text):
            self.append(text)

        def flush(self):
            pass

    terminal, log = Stream(True), Stream(False)
    for stream in (terminal, log):
        line = ProgressLine("a", stream)
        for step in range(101):
            line(step / 100, "tiles")
        line.close()
    assert len(terminal) == 102
    assert all(text.startswith("\r") for text in terminal[:-1])
    assert len(log) == 11
    assert log[-1] == "a: 100% tiles\n"
