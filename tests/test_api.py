"""The public interface: names of `napari_coseg` that scripts use."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import napari_coseg
from cases.export_cases import TOUCHING, grey, prediction

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = (
    *("segment", "refine", "load_model", "list_models", "measure"),
    *("read_image", "understand", "export", "read_geojson", "read_ome_zarr", "open_workspace"),
    *("evaluate", "open_dataset", "finetune", "read_reviewed", "train", "read_recipe"),
)


def test_every_public_name_is_there_and_imported_for_type_checkers() -> None:
    tree = ast.parse(Path(napari_coseg.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napari_coseg")
        for alias in node.names
    }
    assert typed == set(napari_coseg.__all__) - {"__version__"}
    assert set(napari_coseg.__all__) <= set(dir(napari_coseg))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'segmnt'"):
        napari_coseg.segmnt  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_documented(name: str) -> None:
    """Each parameter in the docstring, as well as what is returned and raised."""
    function = getattr(napari_coseg, name)
    text = inspect.getdoc(function) or ""
    first_line = text.splitlines()[0]
    assert first_line.endswith(".") and first_line[0].isupper()
    assert "Returns\n-------\n" in text
    assert "Raises\n------\n" in text
    for parameter in inspect.signature(function).parameters:
        assert parameter in text, parameter


@pytest.mark.parametrize("name", sorted(set(napari_coseg.__all__) - {"__version__"}))
def test_a_public_name_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(napari_coseg, name))


def test_no_name_turns_into_a_module_after_every_submodule_is_imported() -> None:
    for module in pkgutil.walk_packages(napari_coseg.__path__, "napari_coseg."):
        if not module.name.startswith("napari_coseg.widgets"):
            importlib.import_module(module.name)
    public = {name: getattr(napari_coseg, name) for name in napari_coseg.__all__}
    assert [name for name, value in public.items() if inspect.ismodule(value)] == ["editing"]
    assert all(inspect.isfunction(public[name]) for name in FUNCTIONS)


def test_no_module_has_a_public_name() -> None:
    modules = {module.name for module in pkgutil.iter_modules(napari_coseg.__path__)}
    assert not modules & set(napari_coseg.__all__)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=str(path.relative_to(ROOT)))
        for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        if "lab-notes" not in path.parts
    ],
)
def test_documents_import_nothing_internal(path: Path) -> None:
    deep = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith(("from napari_coseg.", "import napari_coseg."))
    ]
    assert not deep


# ---------------------------------------------------------------------------------------------
# What the public functions accept beside what the modules below them pass


def test_models_are_listed_with_their_cards() -> None:
    cards = napari_coseg.list_models()
    assert list(cards) == ["default", "multi-organ", "cbct-synthetic"]
    regions = {name: [c.name for c in card.semantic_classes] for name, card in cards.items()}
    assert regions["default"] == regions["multi-organ"] == ["gland"]
    assert regions["cbct-synthetic"] == ["lower jawbone", "upper jawbone"]
    assert all("ot for diagnosis" in card.notes for card in cards.values())
    for name in ("default", "multi-organ"):
        assert "Research use only" in cards[name].licence
    assert "not validated on real scans" in cards["cbct-synthetic"].notes


@pytest.mark.parametrize("name", ["default", "multi-organ"])
def test_every_shipped_model_finds_nuclei_in_the_sample(name: str) -> None:
    from napari_coseg.images.readers.samples import colon

    image = colon()
    found = napari_coseg.segment(image, name, region=((0, 160), (0, 160)))
    assert len(found.instances) > 10
    assert found.provenance["weights"]["file"] == f"{name}.safetensors"


def test_the_shipped_model_for_volumes_finds_teeth_in_the_sample() -> None:
    from napari_coseg.images.readers.samples import synthetic_cbct

    volume = synthetic_cbct()
    middle = volume.spatial_shape[0] // 3
    found = napari_coseg.segment(
        volume, "cbct-synthetic", region=((middle, middle + 2), (0, 121), (0, 121))
    )
    assert len(found.instances) > 5
    assert (found.semantic == 1).any()


def test_measuring_takes_a_plain_array() -> None:
    found = prediction(TOUCHING)
    image = np.full((*TOUCHING.shape, 3), 200, np.uint8)
    measured = napari_coseg.measure(found, image)
    assert "hematoxylin_od_mean" in measured.objects
    assert len(measured.objects) == len(np.unique(TOUCHING)) - 1


def test_exporting_takes_an_array_or_for_labels_alone_nothing(tmp_path: Path) -> None:
    found = prediction(TOUCHING)
    (path,) = napari_coseg.export(found, None, tmp_path, ["geojson"], name="slide")
    assert path.name == "slide.geojson"
    (path,) = napari_coseg.export(found, grey(TOUCHING).data, tmp_path, ["overlay"], name="slide")
    assert path.name == "slide_overlay.png"
    with pytest.raises(napari_coseg.CosegError, match="overlay show the image"):
        napari_coseg.export(found, None, tmp_path, ["overlay"], name="slide")
