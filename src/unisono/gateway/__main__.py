"""
``python -m unisono.gateway CONTROL_SOCKET TABLE_FILE``: the gateway as a process of its own.

It is started by :mod:`unisono.gateway.process` and imports nothing but the engine, so that it serves within
a fraction of a second. Everything it does is Rust; see ``engine/``.
"""

import sys

from unisono import _engine


def main() -> None:
    """Runs until SIGTERM; exits with 1 and one line on stderr when it cannot start."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m unisono.gateway CONTROL_SOCKET TABLE_FILE")
    try:
        _engine.run_gateway(sys.argv[1], sys.argv[2])
    except OSError as error:
        sys.exit(f"gateway: {error}")


main()
