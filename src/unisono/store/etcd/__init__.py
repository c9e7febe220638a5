"""
The store on etcd, for several machines; see :mod:`.store` for how it works, and docs/reference/store.md.

Needs the packages of ``unisono[etcd]``.
"""

from unisono.store.etcd.store import EtcdStore

__all__ = ["EtcdStore"]
