"""
The node as a program of its own (``python -m unisono.daemon``): nothing of the CLI stays in its memory.

How it is started in the background is :mod:`.nodestart`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from unisono.node.paths import StateFolder
from unisono.precedence import give_precedence


def program(folder: StateFolder, arguments: Sequence[str]) -> list[str]:
    """The argument vector of a node. ``-P``: a file of the user's named like a module is not taken for it."""
    return [sys.executable, "-P", "-m", "unisono.daemon", "--state", str(folder.path), *arguments]


def replace_this_process(folder: StateFolder, arguments: Sequence[str]) -> NoReturn:
    """Become a node in the foreground."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.getsid(0) == os.getpid():  # else the session is another's: a shell, with all that runs in it
        give_precedence(os.getpid())
    os.execv(sys.executable, program(folder, arguments))  # noqa: S606 - no shell is wanted
