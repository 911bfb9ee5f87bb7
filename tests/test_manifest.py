"""The manifest, cross-checked: ``npe2 validate`` lets undefined commands and menus pass."""

from __future__ import annotations

import importlib
import os
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from npe2 import PluginManifest

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = PluginManifest.from_file(ROOT / "napari.yaml")
CONTRIBUTIONS = MANIFEST.contributions
COMMANDS = {command.id: command for command in CONTRIBUTIONS.commands or []}


def references() -> list:
    """(where it stands in the manifest, the command it names)."""
    named = [
        (f"widget {item.display_name!r}", item.command) for item in CONTRIBUTIONS.widgets or []
    ]
    named += [
        (f"sample {item.key!r}", item.command)
        for item in CONTRIBUTIONS.sample_data or []
        if hasattr(item, "command")
    ]
    named += [(f"reader {item.command!r}", item.command) for item in CONTRIBUTIONS.readers or []]
    named += [(f"writer {item.command!r}", item.command) for item in CONTRIBUTIONS.writers or []]
    named += [
        (f"menu {menu!r}", item.command)
        for menu, items in CONTRIBUTIONS.menus.items()
        for item in items
        if hasattr(item, "command")
    ]
    return [pytest.param(command, id=place) for place, command in named]


def test_there_is_a_widget_and_a_sample() -> None:
    assert CONTRIBUTIONS.widgets
    assert CONTRIBUTIONS.sample_data


@pytest.mark.parametrize("command", references())
def test_what_the_manifest_refers_to_is_a_command_of_it(command: str) -> None:
    assert command in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_referred_to(command: str) -> None:
    assert command in {parameter.values[0] for parameter in references()}


@pytest.mark.gui
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_something_callable(command: str) -> None:
    module, _, name = COMMANDS[command].python_name.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("menu", CONTRIBUTIONS.menus)
def test_napari_has_every_menu(menu: str) -> None:
    from napari._app_model.constants import MenuId

    assert menu in {known.value for known in MenuId.contributables()}


def test_ids_and_names_are_used_once() -> None:
    for names in (
        [command.id for command in CONTRIBUTIONS.commands or []],
        [widget.display_name for widget in CONTRIBUTIONS.widgets or []],
        [sample.key for sample in CONTRIBUTIONS.sample_data or []],
    ):
        assert len(names) == len(set(names))


def test_the_manifest_at_the_root_is_the_one_in_the_package() -> None:
    packaged = ROOT / "src" / "napari_coseg" / "napari.yaml"
    assert not packaged.is_symlink(), "the file lies in the package, the link at the root"
    assert os.path.samefile(ROOT / "napari.yaml", packaged), (
        "napari.yaml at the root is no longer a link to src/napari_coseg/napari.yaml; "
        "git checkout napari.yaml mends it (on Windows: git config core.symlinks true)"
    )


def test_the_wheel_holds_the_folder_that_the_entry_point_names() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    entry_points = settings["project"]["entry-points"]["napari.manifest"]
    assert entry_points == {MANIFEST.name: "napari_coseg:napari.yaml"}
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/napari_coseg"]}


def test_napari_finds_the_installed_plugin() -> None:
    try:
        metadata.distribution("napari-coseg")
    except metadata.PackageNotFoundError:
        pytest.skip("napari-coseg is not installed here; `make setup` installs it")
    found = PluginManifest.from_distribution("napari-coseg")
    assert found.contributions == CONTRIBUTIONS
