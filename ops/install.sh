#!/bin/sh
# Installs what a lock names into .venv: install.sh run|dev. Hash-checked; with uv when it can be had, else with pip.
set -eu
cd "$(dirname "$0")/.."
lock=ops/lock/$1.txt
stamp=.venv/.installed-$1
if [ -f "$stamp" ] && cmp -s "$stamp" "$lock"; then exit 0; fi
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "photochanger: $("$python" --version) is too old; Python 3.11 or newer is needed" >&2; exit 1; }
if [ ! -x .venv/bin/python ]; then
    echo "Creating .venv"
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "photochanger: python3 cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "Installing the packages of $lock (the first time up to a minute)"
if command -v uv >/dev/null 2>&1; then uv=uv
elif [ -x .venv/bin/uv ] || .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r ops/lock/uv.txt 2>.venv/uv.log; then uv=.venv/bin/uv
else uv=; fi
if [ -n "$uv" ]; then
    "$uv" pip install --quiet --python .venv/bin/python --require-hashes -r "$lock"
    "$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
else
    .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
fi
cp "$lock" "$stamp"
[ "$1" = run ] || cp ops/lock/run.txt .venv/.installed-run
