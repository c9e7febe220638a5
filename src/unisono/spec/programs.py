"""
What a program finds around it: the variables that it inherits, the folder it runs in, and itself.

This is the one place of reading a file of services that looks at the machine. Starting programs is
:mod:`unisono.node.drivers.process`'s.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from unisono.spec.nodes import quoted

INHERITED = (
    "HOME",
    "LANG",
    "LOGNAME",
    "PATH",
    "PYTHONPATH",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
)
"""Variables that a program gets from whoever applied the file, and all that begin with ``LC_``."""

_BUILTINS = frozenset({"alias", "cd", "eval", "exec", "export", "set", "source", "ulimit", "umask", "."})


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """
    What of ``environ`` a program gets, so that it runs as it would from that shell.

    The folder of the running Python stands last in PATH: a program installed beside unisono is found even
    when its virtual environment is not active.
    """
    found = {name: value for name, value in environ.items() if name in INHERITED or name.startswith("LC_")}
    folders = found.get("PATH", os.defpath).split(os.pathsep)
    own = str(Path(sys.executable).parent)
    if own not in folders:
        folders.append(own)
    found["PATH"] = os.pathsep.join(folders)
    if "PYTHONPATH" in found:
        # A relative entry is meant from where the caller stands, and programs run elsewhere.
        entries = found["PYTHONPATH"].split(os.pathsep)
        found["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in entries if entry)
    return dict(sorted(found.items()))


def missing_folder(path: str) -> bool:
    """Whether there is no folder at ``path``."""
    try:
        return not Path(path).is_dir()
    except (OSError, ValueError):
        return True


def unknown_user(user: str) -> bool:
    """Whether ``user`` (a name, with :group if wanted) is nobody here; a number needs no entry."""
    name = user.partition(":")[0]
    if name.isdecimal():
        return False
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return True
    return False


def search(program: str, search_path: str, working_dir: str) -> str | None:
    """``None`` if the program can be run, else where it was looked for, in words."""
    if "/" in program:
        path = Path(working_dir, program)
        if path.is_dir() or not os.access(path, os.X_OK):
            return f"{path}, which is {'not executable' if path.exists() else 'not there'}"
        return None
    folders = [str(Path(working_dir, entry)) for entry in search_path.split(os.pathsep)]
    if shutil.which(program, path=os.pathsep.join(folders)) is None:
        return f"no such program in PATH ({search_path})"
    return None


def remedy(program: str, words: tuple[str, ...], working_dir: str) -> str:
    """What to do about a program that isn't there."""
    if program in _BUILTINS:
        return f"{program} is a word of the shell, and none runs: write [sh, -c, {quoted(' '.join(words))}]"
    if re.match(r"[A-Za-z_]\w*=", program):
        return "set variables under environment"
    if "/" not in program and (Path(working_dir) / program).is_file():
        return f"to run the file in {working_dir} write ./{program}"
    if " " in program:
        return "in a list each argument is an item of its own"
    return "install it, put its folder into PATH, or write its path"
