#!/usr/bin/env bash
# Fuzzes the request path of the gateway for ten minutes, or for as many seconds as are said; a second argument is
# the seed of a run that found something.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

exec python -m tests.gateway.fuzz --seconds "${1:-600}" ${2:+--seed "$2"}
