"""
The gateway as a process of its own: ``python -m unisono.gateway [--workers N] [--take-over] SOCKET TABLE``.

It is started by :mod:`unisono.gateway.process` and imports nothing but the engine, so that it serves within
a fraction of a second. Everything it does is Rust; see ``engine/``.
"""

import os
import sys

# Memory that thousands of connections no longer need goes back to the system at once. The engine's
# allocator reads this when it is loaded.
os.environ.setdefault("MIMALLOC_PURGE_DELAY", "0")

from unisono import _engine


def main() -> None:
    """Runs until SIGTERM; exits with 1 and one line on stderr when it cannot start."""
    arguments, workers = sys.argv[1:], os.environ.get("UNISONO_GATEWAY_WORKERS")
    if arguments[:1] == ["--workers"]:
        workers, arguments = arguments[1] if len(arguments) > 1 else "", arguments[2:]
    take_over = arguments[:1] == ["--take-over"]
    if take_over:
        arguments = arguments[1:]
    if len(arguments) != 2:
        sys.exit("usage: python -m unisono.gateway [--workers N] [--take-over] CONTROL_SOCKET TABLE_FILE")
    if workers is not None and not workers.isdecimal():
        sys.exit(f"gateway: {workers!r} workers; a number from 1 to 64 would be right")
    try:
        _engine.run_gateway(
            *arguments, workers=None if workers is None else int(workers), take_over=take_over
        )
    except OSError as error:
        sys.exit(f"gateway: {error}")


main()
