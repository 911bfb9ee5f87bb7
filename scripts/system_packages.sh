#!/usr/bin/env bash
# Install the system libraries that napari and its tests need, where this is Debian and it is
# allowed; otherwise print the command that a person can run. Never asks for a password.
# Says nothing when all are there.
set -euo pipefail

packages=(
    python3-venv xauth xvfb
    libdbus-1-3 libegl1 libgl1 libopengl0
    libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
    libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1 libxkbcommon-x11-0
)

command -v dpkg-query >/dev/null || exit 0 # not Debian: nothing we could know

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $(id -u) -eq 0 ]]; then
    as_root=(env)
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n env)
else
    echo "Missing system libraries, and no right to install them. To open napari and to run the"
    echo "tests, run this once:"
    echo "    sudo apt-get install --no-install-recommends ${missing[*]}"
    exit 0
fi

echo "Installing system libraries: ${missing[*]}"
apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
"${apt[@]}" update </dev/null || true # old lists may do
if ! "${apt[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null; then
    echo "apt-get could not install them; going on without. napari may not open." >&2
fi
