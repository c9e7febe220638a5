#!/usr/bin/env bash
# Sets up what `make` needs in this checkout: system packages where that is allowed, .venv with the locked
# dependencies, and the engine built in release mode. Idempotent; does nothing twice, thanks to stamps in
# .venv/.stamps that hold a digest of what each step was made from.
#
#   scripts/setup.sh          to run unisono
#   scripts/setup.sh checks   to check it as well: needs clippy, rustfmt and an etcd besides
#
# What can't be set up ends it with one line that says what is missing and how to get it.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv
readonly STAMPS=$VENV/.stamps
readonly PYTHON_MINOR_MIN=11
export PATH="$HOME/.cargo/bin:$PATH"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '==> %s\n' "$*" >&2; }

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# -- system packages ---------------------------------------------------------------------------------

can_install_packages() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

apt_lists_read=no
install_packages() { # package... ; false when it can't be done
  can_install_packages || return 1
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  if [[ $apt_lists_read == no ]]; then
    apt-get update -qq >&2 || return 1
    apt_lists_read=yes
  fi
  apt-get install -y -qq --no-install-recommends "$@" >&2
}

# -- Python ------------------------------------------------------------------------------------------

find_python() { # prints an interpreter that is new enough
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    if "$name" -c "import sys; sys.exit(sys.version_info < (3, $PYTHON_MINOR_MIN))" 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

makes_environments() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

ensure_venv() {
  [[ -x $VENV/bin/python ]] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && return
  local python
  if ! python=$(find_python); then
    install_packages python3 python3-venv || true
    python=$(find_python) || fail "Python 3.$PYTHON_MINOR_MIN or newer is missing: install it" \
      "(Debian 12 and Ubuntu 24.04: apt install python3 python3-venv)"
  fi
  if ! makes_environments "$python"; then
    install_packages "$(basename "$(readlink -f "$python")")-venv" || install_packages python3-venv || true
    makes_environments "$python" || fail "$python can't make virtual environments: its module ensurepip is" \
      "missing (Debian and Ubuntu: apt install python3-venv)"
  fi
  say "making $VENV with $("$python" --version)"
  rm -rf "$VENV"
  "$python" -m venv "$VENV"
}

ensure_dependencies() {
  local digest
  digest=$(sha256sum <requirements.lock)
  [[ $(cat "$STAMPS/dependencies" 2>/dev/null) == "$digest" ]] && return
  say "installing the dependencies of requirements.lock"
  # The lock is complete, so pip need not, and must not, decide anything.
  "$VENV/bin/python" -m pip install --quiet --no-deps --requirement requirements.lock ||
    fail "pip could not install requirements.lock; is the package index reachable?"
  mkdir -p "$STAMPS"
  printf '%s' "$digest" >"$STAMPS/dependencies"
}

# -- Rust --------------------------------------------------------------------------------------------

wanted_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' engine/Cargo.toml; }

at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; } # MINIMUM FOUND

found_rust() { (rustc --version 2>/dev/null || echo '- none') | cut -d ' ' -f 2; }

rust_is_new_enough() { command -v cargo >/dev/null && at_least "$(wanted_rust)" "$(found_rust)"; }

offered_by_apt() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9.]*\).*/\1/p'; }

install_rust() {
  can_install_packages || return 0
  apt-get update -qq >&2 || return 0
  apt_lists_read=yes
  # Debian numbers cargo as it numbers rustc since 1.70 or so; before, it was 0.x, which is too old either way.
  local offered
  offered=$(offered_by_apt rustc)
  if [[ -n $offered ]] && at_least "$(wanted_rust)" "$offered"; then
    install_packages cargo rustc || true
  elif [[ -n $(offered_by_apt rustup) ]]; then
    install_packages rustup && rustup toolchain install stable --profile minimal \
      --component clippy --component rustfmt >&2 || true
  fi
}

ensure_rust() {
  rust_is_new_enough || install_rust
  hash -r
  rust_is_new_enough || fail "Rust $(wanted_rust) or newer is missing (found: $(found_rust)):" \
    "install it with rustup, see https://rustup.rs"
}

ensure_linker() {
  command -v cc >/dev/null || install_packages gcc libc6-dev || true
  command -v cc >/dev/null || fail "a C linker (cc) is missing, Rust needs one:" \
    "install gcc (Debian and Ubuntu: apt install gcc libc6-dev)"
}

ensure_rust_checks() {
  local tool package
  for tool in clippy fmt; do
    cargo "$tool" --version >/dev/null 2>&1 && continue
    package=rust-clippy
    [[ $tool == fmt ]] && package=rustfmt
    if command -v rustup >/dev/null; then
      rustup component add "${package#rust-}" >&2 || true
    else
      install_packages "$package" || true
    fi
    cargo "$tool" --version >/dev/null 2>&1 || fail "cargo $tool is missing, the checks need it:" \
      "rustup component add ${package#rust-}"
  done
}

engine_digest() {
  {
    find engine -path engine/target -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
    sha256sum pyproject.toml
    pwd # an editable installation holds this path
  } | sha256sum
}

ensure_engine() {
  local digest
  digest=$(engine_digest)
  compgen -G 'src/unisono/_engine*.so' >/dev/null && [[ -x $VENV/bin/unisono ]] &&
    [[ $(cat "$STAMPS/engine" 2>/dev/null) == "$digest" ]] && return
  ensure_linker
  ensure_rust
  say "building the engine (the first time takes a few minutes)"
  local log=$STAMPS/engine.log
  if ! env -u CONDA_PREFIX VIRTUAL_ENV="$PWD/$VENV" "$VENV/bin/maturin" develop --release --locked >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    fail "the engine did not build; the reason stands above, all of it in $log"
  fi
  printf '%s' "$digest" >"$STAMPS/engine"
}

compile_modules() { # as pip does for what it installs: a node starts in half the time
  "$VENV/bin/python" -m compileall -q src || fail "a module of src does not compile; the reason stands above"
}

ensure_etcd() { # the tests of the store on etcd start one; without it they say that they were skipped
  command -v etcd >/dev/null && command -v etcdctl >/dev/null && command -v openssl >/dev/null && return
  install_packages etcd-server etcd-client openssl || say "etcd is missing, its tests are skipped" \
    "(Debian and Ubuntu: apt install etcd-server etcd-client openssl)"
}

ensure_databases() { # the tests of participants start one of each; without them they say that they were skipped
  local missing=()
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null || missing+=(postgresql)
  [[ -x /usr/sbin/pgbouncer ]] || command -v pgbouncer >/dev/null || missing+=(pgbouncer)
  [[ -x /usr/sbin/mariadbd ]] || command -v mariadbd >/dev/null || missing+=(mariadb-server)
  [[ ${#missing[@]} == 0 ]] && return
  install_packages "${missing[@]}" || say "${missing[*]} missing, its tests are skipped" \
    "(Debian and Ubuntu: apt install ${missing[*]})"
}

[[ $(uname -s) == Linux ]] || fail "unisono runs on Linux (it needs pidfd); this is $(uname -s)"
ensure_venv
ensure_dependencies
ensure_engine
compile_modules
if [[ ${1:-} == checks ]]; then
  ensure_rust
  ensure_rust_checks
  ensure_etcd
  ensure_databases
fi
