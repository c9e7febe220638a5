#!/usr/bin/env bash
# Makes the Python code of src/unisono/store/etcd/wire.proto. To be run when that file has changed; a test tells.
#
# The compiler is an older one on purpose: its code runs with the protobuf of its own major version and the next.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly COMPILER=grpcio-tools==1.76.0

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
python3 -m venv "$fresh/venv"
"$fresh/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$COMPILER" 'setuptools<81'
"$fresh/venv/bin/python" -m grpc_tools.protoc -Isrc --python_out=src --pyi_out=src src/unisono/store/etcd/wire.proto
digest=$(sha256sum src/unisono/store/etcd/wire.proto | cut -d ' ' -f 1)
sed -i "1i # Made by scripts/etcd_wire.sh from wire.proto, sha256 $digest. Do not edit." \
  src/unisono/store/etcd/wire_pb2.py src/unisono/store/etcd/wire_pb2.pyi
