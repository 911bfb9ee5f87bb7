"""The packages and the direction of imports between them; `docs/architecture.md` says why."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "napari_coseg"

# package: the packages that it may import, beside itself.
PACKAGES = {
    "core": "",
    # Arrays and files, without torch.
    "images": "core",
    "labels": "core images",
    "workspace": "core labels",
    "formats": "core images labels",
    # Networks and what is done with them.
    "models": "core",
    "datasets": "core images labels",
    "inference": "core images labels models",
    "training": "core labels models datasets",
    "evaluation": "core images labels models datasets inference training",
    "finetuning": "core images labels models datasets workspace inference training",
    # The front ends: everything but each other.
    "cli": "everything but widgets",
    "widgets": "everything but cli",
}
# package: its modules and subpackages from the bottom up; each may import those before it.
# A package that is not listed has one layer.
LAYERS = {
    "core": "errors files words windows geometry types settings card provenance locks",
    "images": "sampling white_point intensity intake text_header slicing volumes readers",
    "labels": "polygons tiling decoding metrics measure editing",
    "models": "nn base coseg coseg_plus meduniseg "
    "registry growing adapted outline costs checkpoints",
}
TORCH_FREE = list(PACKAGES)[: list(PACKAGES).index("models")]
FRONT_ENDS = {"cli", "widgets"}
GUI = {"magicgui", "napari", "pyqtgraph", "qtpy", "superqt", "vispy"}
GUI |= {"PyQt5", "PyQt6", "PySide2", "PySide6"}
QT_BINDINGS = {"PyQt5", "PyQt6", "PySide2", "PySide6"}
OPTIONAL = {"mamba_ssm"}  # the extra mamba; imported where it is used
LONGEST_FILE = {"src": 400, "benchmarks": 400, "examples": 100, "scripts": 400, "tests": 500}
"""Lines; aim at 300."""


# ---------------------------------------------------------------------------------------------
# What the files say


def package_of(module: str) -> str:
    """`napari_coseg.models.base` -> `models`; the package itself -> ``""``."""
    return [*module.split("."), ""][1]


def layer_of(module: str) -> str:
    """`napari_coseg.models.base` -> `base`; a package itself -> ``""``."""
    return [*module.split("."), "", ""][2]


@cache
def files_of_packages() -> dict[Path, str]:
    """Every Python file but the top ``__init__``, and the package that it belongs to."""
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    return {path: path.relative_to(PACKAGE).with_suffix("").parts[0] for path in sorted(files)}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Dotted names of all that a file imports, wherever in the file; modules where known."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import absolute"
            found |= {_module_named(node.module or "", alias.name) for alias in node.names}
    return frozenset(found)


def _module_named(parent: str, name: str) -> str:
    if not parent.startswith("napari_coseg"):
        return parent
    place = PACKAGE.parent.joinpath(*parent.split("."), name)
    is_module = place.with_suffix(".py").is_file() or place.is_dir()
    return f"{parent}.{name}" if is_module else parent


def may_import(importer: str, module: str) -> bool:
    """Whether the module `importer` may import `module`, both of this package."""
    package, target = package_of(importer), package_of(module)
    if target == "":
        return True
    if target == package:
        layers = LAYERS.get(package, "").split()
        ours, theirs = layer_of(importer), layer_of(module)
        return (
            not layers
            or ours == theirs
            or (ours in layers and theirs in layers[: layers.index(ours)])
        )
    if package in FRONT_ENDS:
        return target not in FRONT_ENDS
    return target in PACKAGES[package].split()


def forbidden_packages(package: str) -> set[str]:
    if package == "widgets":
        return QT_BINDINGS  # qtpy stands between us and them
    return GUI | ({"torch", "sam2"} if package in TORCH_FREE else set())


def test_every_file_belongs_to_a_known_package() -> None:
    unknown = sorted(set(files_of_packages().values()) - set(PACKAGES))
    assert not unknown, f"{unknown}: give them a row in PACKAGES and in docs/architecture.md"


@pytest.mark.parametrize("package", LAYERS)
def test_every_layer_is_listed(package: str) -> None:
    inside = {path.name.removesuffix(".py") for path in (PACKAGE / package).iterdir()}
    data = {"__init__", "__pycache__", "weights", "data"}
    assert inside - data == set(LAYERS[package].split())


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def test_imports_run_one_way() -> None:
    wrong = [
        f"{dotted(path)} imports {name}"
        for path in files_of_packages()
        for name in sorted(imports_of(path))
        if name.split(".")[0] == "napari_coseg" and not may_import(dotted(path), name)
    ]
    assert not wrong


def test_no_package_imports_what_it_must_not_know() -> None:
    wrong = [
        f"{dotted(path)} imports {name}"
        for path, package in files_of_packages().items()
        for name in sorted(imports_of(path))
        if name.split(".")[0] in forbidden_packages(package)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("importer", "module", "allowed"),
    [
        ("core.types", "core.errors", True),
        ("core.errors", "core.types", False),
        ("labels.tiling.blocks", "labels.decoding.hover", False),
        ("labels.editing.split", "labels.measure.run", True),
        ("datasets.base", "labels.decoding.hover_targets", True),
        ("models.coseg.model", "models.nn.encoders.hiera", True),
        ("models.nn.encoders.hiera", "models.base", False),
        ("models.base", "training.loop", False),
        ("cli.main", "widgets.show", False),
        ("widgets.show", "cli.main", False),
        ("cli.main", "training.loop", True),
    ],
)
def test_the_rule_itself(importer: str, module: str, allowed: bool) -> None:
    assert may_import(f"napari_coseg.{importer}", f"napari_coseg.{module}") is allowed


def test_the_documentation_has_the_same_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", page, flags=re.MULTILINE)
    documented = {package: set(re.sub("[`,]", "", allowed).split()) for package, allowed in rows}
    expected = {package: set(allowed.split()) for package, allowed in PACKAGES.items()}
    assert documented == {**expected, "core": {"nothing"}}


def test_every_import_is_of_a_declared_dependency() -> None:
    imported = {name.split(".")[0] for path in files_of_packages() for name in imports_of(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"napari_coseg", *OPTIONAL}
    named_by = packages_distributions()
    distributions = {_normalised(named_by.get(name, [name])[0]) for name in foreign}
    assert distributions <= declared_dependencies()


def declared_dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {_normalised(re.split(r"[\[<>=!;~ ]", line)[0]) for line in project["dependencies"]}


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# ---------------------------------------------------------------------------------------------
# What a fresh interpreter says


def modules_after(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` after `code` ran in an interpreter of its own."""
    report = "import json, sys; sys.stdout.flush(); print(); print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return {name.split(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}


def modules_in(packages: Iterable[str]) -> list[str]:
    names = [dotted(path) for path, owner in files_of_packages().items() if owner in packages]
    return [name.removesuffix(".__init__") for name in names if not name.endswith(".__main__")]


@pytest.mark.parametrize(
    "packages",
    [
        pytest.param(TORCH_FREE, id="without torch"),
        pytest.param([name for name in PACKAGES if name != "widgets"], id="without a GUI"),
    ],
)
def test_packages_load_no_gui_and_no_needless_torch(packages: list[str]) -> None:
    """In one interpreter: which module loads it, the test of the imports themselves tells."""
    loaded = modules_after("\n".join(f"import {name}" for name in modules_in(packages)))
    assert not loaded & set.intersection(*map(forbidden_packages, packages))


HELP = """
import sys
sys.argv = ["napari-coseg", "--help"]
from napari_coseg.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "code",
    [pytest.param("import napari_coseg", id="import"), pytest.param(HELP, id="--help")],
)
def test_a_first_look_loads_nothing_heavy(code: str) -> None:
    heavy = {"torch", "sam2", "skimage", "pandas", "scipy", "zarr", "dask", "tifffile"} | GUI
    assert not modules_after(code) & heavy


# ---------------------------------------------------------------------------------------------
# What may stand in no file


@cache
def tracked_files() -> tuple[Path, ...]:
    """All that git tracks; where there is no git, all that is no build product."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode == 0:
        files = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        folders = [
            ROOT / name for name in ("src", "tests", "docs", "benchmarks", "examples", "scripts")
        ]
        files = [*ROOT.glob("*.*"), *(path for folder in folders for path in folder.rglob("*"))]
    return tuple(path for path in files if path.is_file() and not path.is_symlink())


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_no_file_names_a_folder_of_one_machine() -> None:
    folders = "work|opt|root|home|Users|mnt|srv"
    absolute = re.compile(rf"(?<![\w.~$}}:>-])/(?:{folders})/\w")
    texts = {path: path.read_bytes() for path in tracked_files()}
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, data in texts.items()
        if b"\0" not in data[:8000]
        for match in absolute.finditer(data.decode("utf-8", errors="replace"))
    ]
    assert not found


PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_KEYWORDS = {"weights_only", "allow_pickle", "shell"}
PICKLE_ERRORS = {"PickleError", "PicklingError", "UnpicklingError"}  # to be caught


def unsafe_calls(tree: ast.AST) -> list[str]:
    """What would run code that came with a user's file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in PICKLES:
            found += [alias.name for alias in node.names if alias.name not in PICKLE_ERRORS]
        if isinstance(node, ast.Attribute) and dotted_name(node.value) in PICKLES:
            found += [node.attr] if node.attr not in PICKLE_ERRORS else []
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.asname and alias.name in PICKLES]
        if isinstance(node, ast.Call):
            found += _unsafe_call(node)
    return found


def dotted_name(node: ast.AST) -> str:
    """`torch.load` of such an expression; ``""`` of anything but names and dots."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted_name(node.value)):
        return f"{before}.{node.attr}"
    return ""


def _unsafe_call(node: ast.Call) -> list[str]:
    name = dotted_name(node.func)
    keywords = {
        word.arg: ast.unparse(word.value) for word in node.keywords if word.arg in UNSAFE_KEYWORDS
    }
    if name in ("eval", "exec"):
        return [name]
    if name == "torch.load" and keywords.get("weights_only") != "True":
        return ["torch.load without weights_only=True"]
    if keywords.get("allow_pickle", "False") != "False":
        return [f"{name} with allow_pickle"]
    if keywords.get("shell", "False") != "False":
        return [f"{name} with shell"]
    return []


def test_no_file_runs_code_out_of_data() -> None:
    files = python_files("src", "benchmarks", "scripts", "examples")
    found = {str(path.relative_to(ROOT)): unsafe_calls(tree_of(path)) for path in files}
    assert not {path: calls for path, calls in found.items() if calls}


@pytest.mark.parametrize(
    ("line", "is_safe"),
    [
        ("torch.load(f)", False),
        ("torch.load(f, weights_only=False)", False),
        ("torch.load(f, map_location='cpu', weights_only=True)", True),
        ("import pickle\npickle.load(f)", False),
        ("import pickle as p", False),
        ("import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass", True),
        ("from pickle import loads", False),
        ("eval('1')", False),
        ("model.eval()", True),
        ("np.load(f, allow_pickle=True)", False),
        ("subprocess.run(c, shell=True)", False),
    ],
)
def test_the_search_for_unsafe_calls_itself(line: str, is_safe: bool) -> None:
    assert (not unsafe_calls(ast.parse(line))) is is_safe


def test_no_file_is_too_long_to_read() -> None:
    lengths = {
        path.relative_to(ROOT): path.read_text(encoding="utf-8").count("\n")
        for path in python_files(*LONGEST_FILE)
    }
    assert not {path: n for path, n in lengths.items() if n > LONGEST_FILE[path.parts[0]]}
