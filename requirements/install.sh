#!/bin/sh
# install.sh NAME [PACKAGE...]: install NAME.txt into the virtual environment /opt/concordat, without the packages named.
# For the Dockerfile. A builder may mount /run/installer/env: a shell file with the settings of its own package index,
# which then leaves no trace in the image.
set -eu
lock="$(dirname "$0")/$1.txt"
shift
[ ! -f /run/installer/env ] || . /run/installer/env

python3 -m venv /tmp/uv
/tmp/uv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes -r "$(dirname "$0")/uv.txt"

# In a lock, a package's line begins at the margin and its hashes follow. The lock is complete, so dependencies are not
# looked up again: they would bring back what is left out.
awk -v out=" $* " '/^[a-z]/ { name = $0; sub(/==.*/, "", name); keep = !index(out, " " name " ") } keep' "$lock" >/tmp/lock.txt
export UV_CACHE_DIR="${UV_CACHE_DIR:-/var/cache/uv}" UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
/tmp/uv/bin/uv venv --quiet --allow-existing --no-managed-python --python python3 /opt/concordat
/tmp/uv/bin/uv pip install --quiet --python /opt/concordat/bin/python --no-deps --require-hashes -r /tmp/lock.txt
rm -rf /tmp/uv /tmp/lock.txt
