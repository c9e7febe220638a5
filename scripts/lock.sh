#!/usr/bin/env bash
# Writes requirements.lock: every package that pyproject.toml needs to run and to be checked, at the newest
# version it allows, as name==version and nothing else. Resolved with the oldest Python that is supported,
# whose set of packages contains that of the newer ones.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
python3.11 -m venv "$fresh/venv"
python3.11 - >"$fresh/wanted" <<'PYTHON'
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
extras = project["project"]["optional-dependencies"].values()
wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"], *sum(extras, [])]
print("\n".join(wanted))
PYTHON
"$fresh/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$fresh/wanted"
{
  echo "# Written by scripts/lock.sh (make lock). Do not edit."
  "$fresh/venv/bin/python" -m pip freeze --all --disable-pip-version-check |
    grep -v "^setuptools==" | grep -E '^[A-Za-z0-9._-]+==[^ ]+$'
} >"$fresh/lock"
mv "$fresh/lock" requirements.lock
