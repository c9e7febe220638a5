"""
Where the command ``unisono`` begins: it becomes a node at once, or loads the command line.

Loading that takes as long as a node takes to open its store, and where a node is started again others wait:
participants hold locks for transactions that were open. What is not plainly ``unisono node`` with the node's
own options is left to :mod:`unisono.cli.main`, which knows all commands, their help and their errors.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

NODE_OPTIONS: Mapping[str, str | None] = {
    "--listen": "UNISONO_LISTEN",
    "--api": None,
    "--api-token-file": None,
    "--store": "UNISONO_STORE",
    "--store-password-file": None,
    "--access-log": "UNISONO_ACCESS_LOG",
    "--shared-memory": "UNISONO_SHARED_MEMORY",
    "--state": "UNISONO_STATE",
}
"""The options of ``unisono node``, each with the variable of the environment that stands in for it."""


def main() -> None:
    """Run the command, and end with its exit code."""
    options = node_options(sys.argv[1:], os.environ)
    if options is not None:
        try:
            sys.exit(_node([word for pair in options.items() for word in pair]))
        except KeyboardInterrupt:  # before it could be told to end
            sys.exit(130)
    try:
        from unisono.cli.main import main as run  # noqa: PLC0415 - see above
    except KeyboardInterrupt:
        sys.exit(130)
    run()


def _node(arguments: list[str]) -> int:
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]  # `python -m` put it there: a file of the user's named like a module is not one
    from unisono.daemon import main as run  # noqa: PLC0415 - the command line has no use for it
    from unisono.precedence import give_precedence  # noqa: PLC0415

    if os.getsid(0) == os.getpid():  # else the session is another's: a shell, with all that runs in it
        give_precedence(os.getpid())
    return run(arguments)


def node_options(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, str] | None:
    """What a node is to be started with, if that is all that is asked for; else ``None``."""
    if words[:1] != ["node"] or any(name.endswith("_COMPLETE") for name in environment):
        return None
    options = {
        option: environment[variable]
        for option, variable in NODE_OPTIONS.items()
        if variable is not None and environment.get(variable)
    }
    rest = iter(words[1:])
    for word in rest:
        option, equals, value = word.partition("=")
        if not equals:
            value = next(rest, "")
        if option not in NODE_OPTIONS or not value or value.startswith("-"):
            return None
        options[option] = value
    return options


if __name__ == "__main__":
    main()
