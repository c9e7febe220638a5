"""
What a service's programs, the instance and its health command, run with: their variables, their user.

Where they run (cgroups, pipes, a session) is the driver's.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping
from typing import Any

from unisono.node.drivers.base import CannotStart
from unisono.spec.model import ServiceSpec


def variables(spec: ServiceSpec, links: Mapping[str, str], port: int | None) -> dict[str, str]:
    """
    Later ones winning: what was inherited, links, the service's own, and ``PORT``.

    An own variable may replace a link, so that a dependency can be pointed elsewhere.
    """
    own = {name: with_port(value, port) for name, value in spec.environment.items()}
    told = {} if port is None else {"PORT": str(port)}
    return {**spec.inherited, **links, **own, **told}


def with_port(text: str, port: int | None) -> str:
    """``text`` with the instance's port where it says ``{port}``; nothing there when it has none."""
    return text.replace("{port}", "" if port is None else str(port))


def account_of(user: str | None) -> dict[str, Any]:
    """
    Arguments of Popen that make the process run as ``user``, "name" or "name:group", numbers allowed.

    Raises:
        CannotStart: There is no such user or group, or this node may not become it.
    """
    if user is None:
        return {}
    name, _, group = user.partition(":")
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        uid, gid, login = entry.pw_uid, entry.pw_gid, entry.pw_name
    except KeyError:
        if not name.isdecimal():
            raise CannotStart(f"cannot start: no such user: {name}") from None
        uid, gid, login = int(name), int(name), ""  # containers' habit: a number needs no entry
    if group:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise CannotStart(f"cannot start: no such group: {group}") from None
    if os.geteuid() != 0:
        if uid == os.geteuid():
            return {}
        raise CannotStart(
            f"cannot start: to run as user {user} needs a node that runs as root, not as uid {os.geteuid()}"
        )
    groups = os.getgrouplist(login, gid) if login else [gid]
    return {"user": uid, "group": gid, "extra_groups": groups}
