"""
Reads from this machine's memory, where the node mirrors the prefixes that the file names under ``shared``.

    limit = client.mirror.get("config/limit")            # memory alone; never waits
    limit = await client.mirror.read("config/limit")     # else the node is asked

A read of memory takes no system call and no lock, and never sees half a write. How fresh it must be, the
reader says; where memory can't say so, or has no such table, ``get`` raises NotMirrored and ``read`` goes on
to ask the node. Which tables there are, an instance finds in its environment; a service that may not read
all that a table holds is not given it. The tables themselves are ``engine/src/shared``.
Not named ``mirror``: as a module of the package that would hide ``client.mirror``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

from unisono.client.engine import load
from unisono.client.errors import NotMirrored
from unisono.client.keys import Value, current_session, revision_of, session
from unisono.client.keyvalue import Kv, KvSync

if TYPE_CHECKING:
    from unisono._engine import SharedReader, SharedValue

VARIABLE = "UNISONO_SHARED"

_KEYS_MAX = 10_000  # whose tables are remembered

Freshness = Literal["eventual", "bounded", "session"]


class Tables:
    """The tables of this machine's memory, by prefix; each is opened when it is first read."""

    def __init__(self, paths: Mapping[str, str] | None = None) -> None:
        """``paths`` by prefix; ``None``: those in the environment."""
        self._paths = paths
        self._readers: list[tuple[str, SharedReader]] = []
        self.reads: dict[str, Callable[[str], SharedValue | None]] = {}
        """What reads each key that was asked for: to look for its table would take half of a read."""

    def find(self, key: str) -> SharedReader:
        """
        The table that holds ``key``, if anything does.

        Raises:
            NotMirrored: There is none, or it can't be read; the message says why.
            ValueError: The environment's tables are malformed.
        """
        for prefix, reader in self._readers:
            if key.startswith(prefix):
                if len(self.reads) >= _KEYS_MAX:
                    self.reads.clear()
                self.reads[key] = reader.get
                return reader
        if self._paths is None:
            self._paths = _of_environment()
        for prefix, path in self._paths.items():
            if key.startswith(prefix):
                try:
                    opened: SharedReader = load().SharedReader(path)
                except (OSError, RuntimeError) as error:
                    raise NotMirrored(str(error)) from error
                self._readers = [*self._readers, (prefix, opened)]  # threads may be looking
                return opened
        raise NotMirrored(
            f"no table in this machine's memory holds {key!r}; shared: in the file names prefixes"
        )


class _Memory:
    """What both faces share: the reads that never wait."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(  # arguments by keyword alone would cost a tenth of a read
        self,
        key: str,
        consistency: Freshness = "eventual",
        max_staleness: float | None = None,
        token: str | None = None,
    ) -> SharedValue | None:
        """
        The value of ``key`` in this machine's memory, or ``None`` where there is none; never waits.

        Args:
            consistency: ``eventual``: as memory has it, also while no node runs. ``bounded``: at most
                ``max_staleness`` old. ``session``: what the session has seen, and nothing that it could
                not tell the next reader of; that may be less than memory has.
            max_staleness: Seconds, for ``bounded``. Memory is told every 50 ms how old it is.
            token: For ``session``: what was seen; by default that of the session in which this runs.

        Raises:
            NotMirrored: Memory can't answer that; :meth:`read` can.
            ValueError: The arguments contradict each other.
        """
        try:
            if consistency == "eventual" and max_staleness is None and token is None:
                read = self._tables.reads.get(key)
                return self._tables.find(key).get(key) if read is None else read(key)
            _check(consistency, max_staleness, token)
            reader = self._tables.find(key)
            if consistency == "bounded":
                return _bounded(reader, key, max_staleness or 0.0)
            return _in_session(reader, key, token)
        except (OSError, RuntimeError) as error:
            raise NotMirrored(str(error)) from error


class Mirror(_Memory):
    """Keys in this machine's memory, with asyncio."""

    def __init__(self, kv: Kv, tables: Tables) -> None:
        super().__init__(tables)
        self._kv = kv

    async def read(
        self,
        key: str,
        *,
        consistency: Freshness = "eventual",
        max_staleness: float | None = None,
        token: str | None = None,
    ) -> SharedValue | None:
        """
        As :meth:`get`, and where memory can't answer, the node is asked; its values have no timestamp.

        Raises:
            NodeError: As of :meth:`unisono.client.keyvalue.Kv.get`.
            ValueError: The arguments contradict each other.
        """
        try:
            return self.get(key, consistency=consistency, max_staleness=max_staleness, token=token)
        except NotMirrored:
            with nullcontext() if token is None else session(token):
                found = await self._kv.get(key, consistency=consistency, max_staleness=max_staleness)
            return _of_node(found)


class MirrorSync(_Memory):
    """As :class:`Mirror`, for threads."""

    def __init__(self, kv: KvSync, tables: Tables) -> None:
        super().__init__(tables)
        self._kv = kv

    def read(
        self,
        key: str,
        *,
        consistency: Freshness = "eventual",
        max_staleness: float | None = None,
        token: str | None = None,
    ) -> SharedValue | None:
        """As :meth:`Mirror.read`."""
        try:
            return self.get(key, consistency=consistency, max_staleness=max_staleness, token=token)
        except NotMirrored:
            with nullcontext() if token is None else session(token):
                found = self._kv.get(key, consistency=consistency, max_staleness=max_staleness)
            return _of_node(found)


def _check(consistency: str, max_staleness: float | None, token: str | None) -> None:
    if consistency not in ("eventual", "bounded", "session"):
        raise ValueError(
            f"consistency is {consistency!r}, want eventual, bounded or session; client.kv has linearizable"
        )
    if (max_staleness is not None) != (consistency == "bounded"):
        raise ValueError("max_staleness is for consistency 'bounded', which needs it")
    if max_staleness is not None and not max_staleness >= 0:
        raise ValueError(f"max_staleness is {max_staleness} s, must be at least 0")
    if token is not None and consistency != "session":
        raise ValueError("a token is for consistency 'session'")


def _bounded(reader: SharedReader, key: str, max_staleness: float) -> SharedValue | None:
    # First how old it is: what is read after that is not older.
    age = reader.progress()[1] / 1e9
    if age > max_staleness:
        raise NotMirrored(f"memory may be {age:.3f} s old, {max_staleness:g} s are asked for")
    return reader.get(key)


def _in_session(reader: SharedReader, key: str, token: str | None) -> SharedValue:
    """
    What memory has, if the session's token covers it.

    A token can't be made here, so what is newer than the session has seen could not be told to the next
    reader, who might then look back behind it. Absence has no revision, so it may always be newer.
    """
    own = current_session()
    seen = revision_of(token) if token is not None else None if own is None else own.revision
    if seen is None:
        raise NotMirrored("the session has seen nothing yet, or its token does not tell what")
    there = reader.progress()[0]
    if there < seen:
        raise NotMirrored(f"memory stands at revision {there}, the session has seen {seen}")
    found = reader.get(key)
    if found is None:
        raise NotMirrored(f"{key!r} may have been removed after revision {seen}, which the session has seen")
    if found.revision > seen:
        raise NotMirrored(f"{key!r} was set at revision {found.revision}, the session has seen {seen}")
    return found


def _of_node(found: Value | None) -> SharedValue | None:
    return None if found is None else load().SharedValue(found.value, found.revision, None)


def _of_environment() -> Mapping[str, str]:
    text = os.environ.get(VARIABLE, "{}")
    try:
        paths = json.loads(text)
    except ValueError:
        paths = None
    if not isinstance(paths, dict) or not all(isinstance(path, str) for path in paths.values()):
        raise ValueError(f"{VARIABLE} is {text[:60]!r}, want a JSON object from prefixes to files")
    return paths
