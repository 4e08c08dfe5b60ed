#!/bin/sh
# Installs the sidecar as the image has it, from the tree named by the first argument:
#   /opt/sidecar      a virtual environment with the versions and hashes of requirements.lock, and no pip;
#                     with a second argument, the name of an extra, those of requirements-otel.lock
#   /etc/sidecar      where config.yaml is to be mounted; the working directory, so that every command finds it
#   /var/lib/sidecar  the embedded store, the only place that is written to
# Nothing is compiled but Python to byte code: what has no wheel for this machine is an error.
set -eu
source=$1
home=/opt/sidecar
user=65532 # "nonroot" of the base image

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cp -R "$source" "$build/source" # building writes beside the source

python3 -m venv "$build/venv"
pip() { "$build/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install --require-hashes --only-binary :all: -r "$source/deploy/build.lock"
pip wheel --no-deps --no-index --no-build-isolation --wheel-dir "$build" "$build/source"

python3 -m venv --without-pip "$home"
into_home() { pip --python "$home/bin/python" install --no-compile --only-binary :all: "$@"; }
into_home --require-hashes -r "$source/deploy/requirements${2:+-$2}.lock"
into_home --no-deps --no-index --find-links "$build" mcp-sidecar

# Nothing can be cached at run time. By hash and not by date, so that the same source gives the same image.
"$home/bin/python" -m compileall -q -j 0 --invalidation-mode checked-hash "$home/lib"

install -d -m 0755 /etc/sidecar
install -d -m 0700 -o "$user" -g "$user" /var/lib/sidecar
ln -s /var/lib/sidecar /etc/sidecar/data # the embedded store's default place, data/sidecar.db
