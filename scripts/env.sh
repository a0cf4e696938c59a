# Sourced by the other scripts: a virtual environment with what is pinned, the package, and the native libraries.
# Every part is skipped when it is there already. Wants: Python >= 3.10 with pip or venv, a C++ compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "[setup] $*" >&2; }
die() { echo "[setup] $*" >&2; exit 1; }

find_python() {
    local python
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    die "no Python >= 3.10 found (Debian, Ubuntu: apt install python3 python3-venv); PYTHON=... names one"
}

find_uv() { # prints a uv; gets one with pip when there is none
    if command -v uv >/dev/null; then command -v uv; return; fi
    local own=.build/uv
    if [ ! -x "$own/bin/uv" ]; then
        say "installing uv into $own"
        mkdir -p .build
        "$1" -m venv "$own" >/dev/null 2>&1 || "$1" -m virtualenv -q "$own" 2>/dev/null ||
            die "cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)"
        "$own/bin/python" -m pip install -q --disable-pip-version-check uv || die "pip could not install uv"
    fi
    echo "$PWD/$own/bin/uv"
}

fetch_ahead() { # upstream's sources, while packages are installed; if it fails the build tries again, and tells
    local python=.build/uv/bin/python
    if [ ! -d .build/src ] && [ -x "$python" ]; then
        "$python" vendor/sources.py >/dev/null 2>&1 &
    fi
}

install_pinned() { # $1: lock file
    local python uv want have
    want="$1 $(cat "$1" pyproject.toml | cksum)"
    have=$(cat .venv/.installed 2>/dev/null || true)
    # the development lock holds all of the other one
    if [ "$have" = "$want" ] || [ "$have" = "requirements-dev.lock $(cat requirements-dev.lock pyproject.toml | cksum)" ]; then
        return
    fi
    python=$(find_python)
    uv=$(find_uv "$python")
    fetch_ahead
    say "installing the pinned packages of $1"
    if [ ! -x .venv/bin/python ]; then "$uv" venv -q --python "$python" .venv; fi
    "$uv" pip install --python .venv/bin/python -q --require-hashes --no-deps -r "$1"
    "$uv" pip install --python .venv/bin/python -q --no-deps --no-build-isolation -e .
    echo "$want" > .venv/.installed
}

build_native() { # AXION_FLAVOUR names another build than the one for this machine: what runs after this takes it
    wait # for what is fetched ahead
    .venv/bin/python vendor/build.py "$@"
    if [ "${AXION_FLAVOUR:-native}" != native ]; then
        export AXION_LIB_DIR=${AXION_LIB_DIR:-$PWD/.build/$AXION_FLAVOUR/lib}
    fi
}

install_apt() { # Debian's packages, as root or by sudo
    local as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    say "installing $*"
    "${as_root[@]}" apt-get update -q >&2 &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@" >&2 ||
        die "apt could not install $*"
}
