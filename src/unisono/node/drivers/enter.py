"""
Enters control groups, becomes another user, and then the program: the last steps before an instance.

Run by its path, ``python enter.py UID GID GROUP[,GROUP...] PROCS[,PROCS...] PROGRAM ARGUMENT...``, where
limits and ``user`` come together: only root may enter the groups, and the program must not be root. Where
there are limits alone, a line of shell does it faster (:mod:`unisono.node.drivers.startable`).
"""

from __future__ import annotations

import os
import sys


def main(uid: str, gid: str, groups: str, procs: str, *command: str) -> None:
    """Become the program; ends with 126 and a line on stderr if that is impossible."""
    try:
        for path in procs.split(","):
            with open(path, "w") as file:
                file.write("0")
        os.setgroups([int(group) for group in groups.split(",")])
        os.setgid(int(gid))
        os.setuid(int(uid))
        os.execvp(command[0], command)  # noqa: S606 - a shell in between is what this avoids
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
