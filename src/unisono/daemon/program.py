"""A node from its arguments to its exit code: what it logs where, and what it says when it can't run."""

from __future__ import annotations

import gc
import logging
import sys

import uvloop

from unisono.api.tokens import BadToken
from unisono.daemon.first import run_node
from unisono.daemon.settings import EXIT_FAULT, EXIT_REFUSED, EXIT_USAGE, CannotRun, settings_of
from unisono.node.paths import StateFolder, StateFolderError
from unisono.store.base import StoreError

_log = logging.getLogger("unisono")


def main(arguments: list[str] | None = None) -> int:
    """Run a node; returns the program's exit code."""
    gc.disable()  # until the node is ready: what is made at the start stays
    try:
        settings, log_to_folder = settings_of(arguments)
        is_new = not settings.folder.path.exists()
        settings.folder.prepare()
        _log_to(settings.folder if log_to_folder else None)
        try:
            uvloop.run(run_node(settings))
        except CannotRun:
            if is_new:  # what is refused changes nothing
                settings.folder.discard()
            raise
    except CannotRun as error:
        return _complain(str(error), error.code, error.hint)
    except BadToken as error:
        return _complain(str(error), EXIT_USAGE)
    except StateFolderError as error:
        return _complain(str(error), EXIT_REFUSED)
    except (StoreError, OSError) as error:
        return _complain(str(error), EXIT_FAULT)
    except BaseExceptionGroup as group:
        for fault in _leaves(group):
            expected = isinstance(fault, StoreError | OSError)
            _log.error("the node has to end: %s", fault, exc_info=None if expected else fault)
        return _complain(str(_leaves(group)[0]), EXIT_FAULT)
    return 0


def _log_to(folder: StateFolder | None) -> None:
    """Log to stderr, or to a file of the state folder, of which one older part is kept."""
    handler: logging.Handler = logging.StreamHandler()
    style = "%(levelname)s: %(message)s"
    if folder is not None:
        from logging.handlers import RotatingFileHandler  # noqa: PLC0415 - takes some milliseconds

        handler = RotatingFileHandler(folder.path / "node.log", maxBytes=1_000_000, backupCount=1)
        style = "%(asctime)s %(levelname)s: %(message)s"
    handler.setFormatter(logging.Formatter(style))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("unisono").setLevel(logging.INFO)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _complain(message: str, code: int, hint: str = "") -> int:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code
