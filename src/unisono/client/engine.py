"""
Loads the engine for programs that may have done without it until now, in whatever thread they notice.

The engine's allocator takes the thread that loads it for the process's first one, and what is allocated
after that thread has ended crashes. So it is loaded in the main thread, or in one that never ends.
"""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from types import ModuleType

_NAME = "unisono._engine"
_lock = threading.Lock()


def load() -> ModuleType:
    """The engine; may be called in any thread."""
    with _lock:
        if _NAME not in sys.modules and threading.current_thread() is not threading.main_thread():
            _load_elsewhere()
    return import_module(_NAME)


def _load_elsewhere() -> None:
    loaded = threading.Event()

    def stay() -> None:
        try:
            import_module(_NAME)
        finally:
            loaded.set()
        threading.Event().wait()

    threading.Thread(target=stay, name="unisono-engine", daemon=True).start()
    loaded.wait()
