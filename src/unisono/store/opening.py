"""
From an address to an open store: the one place that knows which engines there are.

Here is also what a node remembers of its choice: a node that is started again in the same state folder, by
``unisono down`` for instance, must find the store it had, not an empty one.
"""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

from unisono.kept import write_kept
from unisono.store.addresses import BadStoreAddress, EtcdAddress, SqliteAddress, parse_store
from unisono.store.base import Broken, Store

Address = SqliteAddress | EtcdAddress


async def open_store(address: Address) -> Store:
    """
    Open the store at ``address``.

    Raises:
        Broken: It can't be opened; or what it needs is not installed, then the message says what.
        NotDone: It could not be reached.
    """
    if isinstance(address, SqliteAddress):
        from unisono.store.sqlite import SqliteStore  # noqa: PLC0415 - a node needs one engine only

        return await SqliteStore.open(address.path)
    try:
        from unisono.store.etcd import EtcdStore  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise Broken(
            f"a store on etcd needs packages that are missing here ({error}): pip install 'unisono[etcd]'"
        ) from error
    return await EtcdStore.open(address)


def choose(
    text: str | None,
    *,
    kept: Path,
    default: Path,
    password: str | None = None,
    password_file: Path | None = None,
) -> Address:
    """
    The store to use: the one named in ``text``, else the one kept (:func:`keep`), else the file ``default``.

    A password is taken from ``password_file``, else from ``password``, else from the file that was kept.

    Raises:
        BadStoreAddress: The text, or what was kept, names no store; or the password can't be read.
    """
    if text is None:
        lines = kept.read_text().splitlines() if kept.exists() else []
        if not lines:
            return SqliteAddress(path=default)
        text = lines[0]
        if password is None and password_file is None and len(lines) > 1:
            password_file = Path(lines[1])
    address = parse_store(text)
    if isinstance(address, EtcdAddress) and address.user is not None:
        secret = password if password_file is None else read_password(password_file)
        return replace(address, password=secret)
    return address


def keep(kept: Path, text: str, password_file: Path | None) -> None:
    """Remember a choice; never the password itself."""
    lines = [text] if password_file is None else [text, str(password_file.absolute())]
    write_kept(kept, "".join(f"{line}\n" for line in lines))


def read_password(path: Path) -> str:
    """
    The password in a file that only its owner can read.

    Raises:
        BadStoreAddress: It can't be read, others can read it, or it is empty.
    """
    try:
        mode = path.stat().st_mode
        password = path.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadStoreAddress(f"can't read the store's password in {path}: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadStoreAddress(f"{path} holds a password and others may read it; chmod 600 {path}")
    if not password:
        raise BadStoreAddress(f"{path} is empty; it should hold the store's password")
    return password
