#!/usr/bin/env bash
# Make a virtual environment and install the package into it, editable, with all that the tests
# and the linters need.    usage: scripts/install.sh [FOLDER, by default .venv]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${1:-.venv}

usable_python() { # 3.11 or newer, able to make environments
    "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if command -v "$name" >/dev/null && usable_python "$name"; then
            command -v "$name"
            return
        fi
    done
    echo "No Python 3.11 or newer that can make virtual environments was found (looked for" >&2
    echo "${PYTHON:-python3, python3.13, python3.12, python3.11, python}). On Debian 12 or newer:" >&2
    echo "    sudo apt-get install python3-venv" >&2
    echo "or name one: make setup PYTHON=/path/to/python3.12" >&2
    return 1
}

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making $venv with $python"
    "$python" -m venv --clear "$venv"
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@" </dev/null; }

# As a URL, because pip splits this variable at spaces.
constraints=$("$venv/bin/python" -c \
    'import pathlib; print(pathlib.Path("constraints.txt").resolve().as_uri())')
export PIP_CONSTRAINT="${PIP_CONSTRAINT:+$PIP_CONSTRAINT }$constraints"
export PIP_PROGRESS_BAR=off
echo "Installing torch"
pip install -qq --upgrade pip setuptools wheel
pip install -qq torch
echo "Building sam2" # a source package: built beside the torch above instead of a second one
SAM2_BUILD_CUDA=0 pip install -qq --no-build-isolation --no-deps sam2
echo "Installing napari-coseg and what it needs"
pip install -qq --editable '.[pyqt6,dev]'
