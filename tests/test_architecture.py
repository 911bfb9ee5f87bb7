"""The rooms of the house and which way imports run. `docs/architecture.md` says why."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "napari_coseg"

# room: what it may import, beside itself. A name with a dot means that one module only.
FOUNDATION = "errors types settings card provenance locks"
ROOMS = {
    "errors": "",
    "types": "errors",
    "settings": "errors",
    "card": "errors types settings",
    "provenance": "",
    "locks": "",
    # Arrays in, arrays out; no torch down to here and in these.
    "intensity": FOUNDATION,
    "intake": f"{FOUNDATION} intensity",
    "polygons": FOUNDATION,
    "volumes": FOUNDATION,
    "tiling": FOUNDATION,
    "decoding": FOUNDATION,
    "metrics": FOUNDATION,
    "measure": f"{FOUNDATION} intake",
    "editing": f"{FOUNDATION} polygons decoding measure",
    "workspace": f"{FOUNDATION} editing measure",
    "readers": f"{FOUNDATION} volumes intake",
    "export": f"{FOUNDATION} polygons intake measure",
    # Networks and their files.
    "nn": FOUNDATION,
    "models": f"{FOUNDATION} nn",
    "checkpoints": f"{FOUNDATION} nn models",
    "datasets": f"{FOUNDATION} polygons volumes intensity intake decoding.hover_targets",
    # What one does with them.
    "inference": (
        f"{FOUNDATION} intensity intake tiling decoding measure readers nn models checkpoints"
    ),
    "training": f"{FOUNDATION} tiling decoding metrics nn models checkpoints datasets",
    "evaluation": (
        f"{FOUNDATION} intensity intake tiling decoding metrics measure readers"
        " nn models checkpoints datasets inference training"
    ),
    "finetuning": (
        f"{FOUNDATION} intensity intake decoding metrics readers models checkpoints datasets"
        " workspace"
        " inference training"
    ),
    "costs": f"{FOUNDATION} models",
    "ablation": f"{FOUNDATION} models checkpoints training",
    # The faces: everything but each other.
    "cli": "everything but widgets",
    "widgets": "everything but cli",
}
TORCH_FREE = list(ROOMS)[: list(ROOMS).index("nn")]  # all rows above that one
FACES = {"cli", "widgets"}
GUI = {"magicgui", "napari", "pyqtgraph", "qtpy", "superqt", "vispy"}
GUI |= {"PyQt5", "PyQt6", "PySide2", "PySide6"}
QT_BINDINGS = {"PyQt5", "PyQt6", "PySide2", "PySide6"}
OPTIONAL = {"mamba_ssm", "nibabel"}  # the extras mamba and volumes; imported where they are used
LONGEST_FILE = {"src": 400, "benchmarks": 400, "scripts": 400, "tests": 500}  # lines; aim at 300


# ---------------------------------------------------------------------------------------------
# What the files say


def room_of(module: str) -> str:
    """`napari_coseg.models.base` -> `models`; the package itself -> ``""``."""
    return [*module.split("."), ""][1]


@cache
def files_of_rooms() -> dict[Path, str]:
    """Every Python file but the package's own ``__init__``, and the room it stands in."""
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    return {path: path.relative_to(PACKAGE).with_suffix("").parts[0] for path in sorted(files)}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Dotted names of all that a file imports, wherever in the file; modules where known."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import absolute"
            found |= {_module_named(node.module or "", alias.name) for alias in node.names}
    return frozenset(found)


def _module_named(parent: str, name: str) -> str:
    place = PACKAGE.parent.joinpath(*parent.split("."), name)
    is_module = place.with_suffix(".py").is_file() or place.is_dir()
    return f"{parent}.{name}" if is_module else parent


def may_import(room: str, module: str) -> bool:
    """Whether a file of `room` may import `module` of this package."""
    target = room_of(module)
    if target in (room, ""):
        return True
    if room in FACES:
        return target not in FACES
    inside = module.removeprefix("napari_coseg.")
    return any(
        inside == allowed or inside.startswith(f"{allowed}.") for allowed in ROOMS[room].split()
    )


def forbidden_packages(room: str) -> set[str]:
    if room == "widgets":
        return QT_BINDINGS  # qtpy stands between us and them
    return GUI | ({"torch", "sam2"} if room in TORCH_FREE else set())


def files_by_name() -> list:
    rooms = files_of_rooms().items()
    return [pytest.param(path, room, id=str(path.relative_to(PACKAGE))) for path, room in rooms]


def test_every_file_stands_in_a_known_room() -> None:
    strangers = sorted(set(files_of_rooms().values()) - set(ROOMS))
    assert not strangers, f"{strangers}: give them a row in ROOMS and in docs/architecture.md"


@pytest.mark.parametrize(("path", "room"), files_by_name())
def test_imports_run_one_way(path: Path, room: str) -> None:
    ours = {name for name in imports_of(path) if name.split(".")[0] == "napari_coseg"}
    assert not {name for name in ours if room in ROOMS and not may_import(room, name)}


@pytest.mark.parametrize(("path", "room"), files_by_name())
def test_no_room_imports_what_it_must_not_know(path: Path, room: str) -> None:
    packages = {name.split(".")[0] for name in imports_of(path)}
    assert not packages & forbidden_packages(room)


@pytest.mark.parametrize(
    ("room", "module", "allowed"),
    [
        ("types", "napari_coseg.core.errors", True),
        ("errors", "napari_coseg.core.types", False),
        ("tiling", "napari_coseg.labels.decoding.hover", False),
        ("datasets", "napari_coseg.labels.decoding.hover_targets", True),
        ("datasets", "napari_coseg.labels.decoding.hover", False),
        ("models", "napari_coseg.models.nn.hiera", True),
        ("nn", "napari_coseg.models.base", False),
        ("cli", "napari_coseg.widgets.show", False),
        ("widgets", "napari_coseg.cli.main", False),
        ("cli", "napari_coseg.training.loop", True),
    ],
)
def test_the_rule_itself(room: str, module: str, allowed: bool) -> None:
    assert may_import(room, module) is allowed


def test_the_documentation_has_the_same_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", page, flags=re.MULTILINE)
    documented = {room: set(re.sub("[`,]", "", allowed).split()) for room, allowed in rows}
    expected = {
        room: set(allowed.replace(FOUNDATION, "foundation").split())
        for room, allowed in ROOMS.items()
        if room not in FOUNDATION.split()
    }
    assert documented == expected


def test_every_import_is_of_a_declared_dependency() -> None:
    imported = {name.split(".")[0] for path in files_of_rooms() for name in imports_of(path)}
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


def modules_in(room: str) -> list[str]:
    inside = [path for path, its_room in files_of_rooms().items() if its_room == room]
    dotted = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in inside]
    return [name.removesuffix(".__init__") for name in dotted if not name.endswith(".__main__")]


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "widgets"])
def test_a_room_alone_brings_in_no_window_and_no_needless_torch(room: str) -> None:
    modules = modules_in(room)
    if not modules:
        pytest.skip(f"the room {room!r} is empty so far")
    loaded = modules_after("\n".join(f"import {name}" for name in modules))
    assert not loaded & forbidden_packages(room)


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
        folders = [ROOT / name for name in ("src", "tests", "docs", "benchmarks", "scripts")]
        files = [*ROOT.glob("*.*"), *(path for folder in folders for path in folder.rglob("*"))]
    return tuple(path for path in files if path.is_file() and not path.is_symlink())


def python_files(*folders: str) -> list:
    files = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in files]


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
PICKLE_ERRORS = {"PickleError", "PicklingError", "UnpicklingError"}  # to be caught


def unsafe_calls(tree: ast.AST) -> list[str]:
    """What would run code that came with a user's file."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in PICKLES:
            found += [alias.name for alias in node.names if alias.name not in PICKLE_ERRORS]
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in PICKLES:
            found += [node.attr] if node.attr not in PICKLE_ERRORS else []
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.asname and alias.name in PICKLES]
        if isinstance(node, ast.Call):
            found += _unsafe_call(node)
    return found


def _unsafe_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if name in ("eval", "exec"):
        return [name]
    if name == "torch.load" and keywords.get("weights_only") != "True":
        return ["torch.load without weights_only=True"]
    if keywords.get("allow_pickle", "False") != "False":
        return [f"{name} with allow_pickle"]
    if keywords.get("shell", "False") != "False":
        return [f"{name} with shell"]
    return []


@pytest.mark.parametrize("path", python_files("src", "benchmarks", "scripts"))
def test_no_file_runs_code_out_of_data(path: Path) -> None:
    assert not unsafe_calls(ast.parse(path.read_text(encoding="utf-8")))


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


@pytest.mark.parametrize("path", python_files(*LONGEST_FILE))
def test_no_file_is_too_long_to_read(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE[path.relative_to(ROOT).parts[0]]
