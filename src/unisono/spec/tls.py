"""
Certificates as they are written, to paths that the gateway can open wherever it runs.

The files are looked at, not kept: the gateway reads them itself, and again when they change.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from unisono.spec.errors import Report
from unisono.spec.nodes import Node, Scalar, problem, quoted
from unisono.spec.requests import Certificate, Tls
from unisono.spec.written import PublicTls

PEM_BYTES_MAX = 1 << 20


def tls(written: PublicTls | None, node: Node, report: Report) -> Tls | None:
    """
    Certificates by absolute paths; ``node`` is where they are written.

    Files that are not there, can't be read or hold something else are noted in the report.
    """
    if written is None:
        return None
    pairs = [(one.certificate, one.key) for one in written.certificates or ()]
    if written.certificates is not None and (written.certificate or written.key):
        wanted = "certificate and key, or certificates"
        report.error(problem(node, wanted, found="certificates beside certificate or key"))
    elif written.certificate is not None and written.key is not None:
        pairs = [(written.certificate, written.key)]
    if not pairs:
        if not report.problems:
            report.error(problem(node, "certificate and key in it"))
        return None
    certificates = tuple(
        Certificate(
            certificate=_pem(certificate, "CERTIFICATE", report), key=_pem(key, "PRIVATE KEY", report)
        )
        for certificate, key in pairs
    )
    authority = getattr(written, "client_ca", None)
    return Tls(
        certificates=certificates,
        client_ca=None if authority is None else _pem(authority, "CERTIFICATE", report),
    )


def _pem(node: Node, label: str, report: Report) -> str:
    """The absolute path of a PEM file with such a block in it."""
    text = cast(Scalar, node).text
    path = Path(os.path.abspath(node.mark.source.folder / os.path.expanduser(text)))
    wanted = f"a PEM file with a {label}"
    try:
        with path.open("rb") as file:
            held = file.read(PEM_BYTES_MAX)
    except OSError as error:
        why = error.strerror or str(error)
        report.error(problem(node, wanted, hint=f"{path}: {why}"))
        return str(path)
    if b"-----BEGIN " not in held or f"{label}-----".encode() not in held:
        report.error(
            problem(node, wanted, found=f"the file {quoted(text)} without one", hint=f"it is {path}")
        )
    return str(path)
