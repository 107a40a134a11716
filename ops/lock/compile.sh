#!/bin/sh
# Writes the hashed locks anew from pyproject.toml. Needs uv; names no registry.
set -eu
cd "$(dirname "$0")/../.."
flags="--quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11"
# Editable installs build with these; they come from the lock too, so that nothing unhashed is ever fetched.
printf 'hatchling\neditables\n' | uv pip compile $flags pyproject.toml - --extra embedded --extra heif --extra s3 -o ops/lock/run.txt "$@"
uv pip compile $flags pyproject.toml --extra embedded --extra heif --extra s3 --group dev -c ops/lock/run.txt -o ops/lock/dev.txt "$@"
printf 'uv\n' | uv pip compile $flags - -o ops/lock/uv.txt "$@"
