#!/bin/sh
# Creates .venv and installs the pinned packages: `make setup` runs it.
# A checkout that is already set up is left alone: nothing is done unless one of the
# files that say what to install has changed since.
#
#   ACCELERATOR  cpu (default) or cuda
#   PYTHON       the Python 3.11 to use; python3.11 or python3 of the PATH if left out
set -eu
cd "$(dirname "$0")/.."

accelerator=${ACCELERATOR:-cpu}
requirements=requirements/$accelerator.txt
alias=packaging/fbgemm-gpu-cpu-alias
if [ ! -f "$requirements" ]; then
    echo "error: ACCELERATOR must be cpu or cuda, got '$accelerator'" >&2
    exit 1
fi

stamp=.venv/.ready
# The folder is part of the stamp: a virtual environment does not survive a move.
wanted="$accelerator $PWD $(cat "$requirements" "$alias/pyproject.toml" "$0" | cksum)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

is_311() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}
python=
for candidate in ${PYTHON:-python3.11 python3}; do
    if is_311 "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    found=$(python3 --version 2>/dev/null || echo none)
    echo "error: needs Python 3.11, found $found; install it," \
        "or name it: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi

# The CPU and the GPU pair have equal versions: pip would not exchange one for the other.
kept=$(cut -d ' ' -f 1 "$stamp" 2>/dev/null || echo "$accelerator")
if [ "$kept" != "$accelerator" ] || ! is_311 .venv/bin/python; then
    rm -rf .venv
fi
rm -f "$stamp"
if [ ! -d .venv ]; then
    echo "Creating .venv with $("$python" --version)"
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "error: '$python -m venv' failed;" \
            "on Debian and Ubuntu: apt-get install python3.11-venv" >&2
        exit 1
    fi
fi

pip() {
    .venv/bin/python -m pip --disable-pip-version-check "$@"
}
echo "Installing the packages of $requirements (some minutes the first time)"
if [ "$accelerator" = cpu ]; then
    # The CPU build of this one package comes from PyTorch's own index; where that is
    # out of reach, pip takes what its own configuration offers.
    index=https://download.pytorch.org/whl/cpu
    reach="import urllib.request as r; r.urlopen('$index/torch/', timeout=10)"
    if .venv/bin/python -c "$reach" 2>/dev/null; then
        pip install -qq --no-deps --extra-index-url "$index" \
            "$(grep '^torch==' "$requirements")"
    fi
    # In one go with its alias, or torchrec would bring the CUDA build of fbgemm.
    pip install -qq -r "$requirements" "./$alias"
else
    pip install -qq -r "$requirements"
fi
pip install -qq --no-deps --no-build-isolation -e .
pip check
echo "$wanted" >"$stamp"
