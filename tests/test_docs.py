"""The documentation site builds without warnings, and its reference lists every public name."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import napari_coseg
from napari_coseg.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("mkdocs", "mkdocstrings", "material", "griffe_pydantic")

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in NEEDED), reason="needs the extra docs"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder


def test_the_reference_shows_every_public_name(site: Path) -> None:
    page = (site / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'id="napari_coseg\.(\w+)"', page))
    assert set(napari_coseg.__all__) - {"__version__"} <= shown


def test_the_reference_shows_every_command(site: Path) -> None:
    page = (site / "reference" / "command-line" / "index.html").read_text(encoding="utf-8")
    assert all(f"usage: napari-coseg {command}" in page for command in COMMANDS)


def test_no_page_fetches_anything(site: Path) -> None:
    """Styles, scripts, fonts and pictures lie in the site itself."""
    fetched = re.compile(
        r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+stylesheet[^>]+https?:'
    )
    pages = site.rglob("*.html")
    assert not [page.name for page in pages if fetched.search(page.read_text(encoding="utf-8"))]
