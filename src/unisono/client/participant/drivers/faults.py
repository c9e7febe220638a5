"""What an exception of a database library means, found by its code alone: no library is imported for it."""

from __future__ import annotations

from unisono.client.participant.dialects import Dialect, why
from unisono.client.participant.steps import Fault, Why

_LIBRARIES = frozenset(
    (
        "psycopg",
        "psycopg_pool",
        "asyncpg",
        "sqlalchemy",
        "pymysql",
        "aiomysql",
        "MySQLdb",
        "sqlite3",
        "aiosqlite",
    )
)
_DETAIL_MAX = 500


def fault_of(dialect: Dialect, error: BaseException) -> Fault | None:
    """The fault that an exception is; ``None`` if it comes from no database library and no connection."""
    if isinstance(error, (ConnectionError, EOFError)):
        return Fault(Why.LOST, "", str(error) or type(error).__name__)
    if not {kind.__module__.partition(".")[0] for kind in type(error).__mro__} & _LIBRARIES:
        return None
    original = getattr(error, "orig", None) or error  # SQLAlchemy's wrapper
    code = _code(dialect, original)
    message = (str(original).splitlines() or [type(original).__name__])[0][:_DETAIL_MAX]
    if getattr(error, "connection_invalidated", False):
        return Fault(Why.LOST, code, message)
    if not code and not _is_of_connection(original):
        return Fault(Why.OTHER, type(original).__name__, message)
    return Fault(why(dialect, code, message), code, message)


def _code(dialect: Dialect, error: BaseException) -> str:
    if dialect.name == "sqlite":
        return str(getattr(error, "sqlite_errorname", "") or "")
    if dialect.name == "mysql":
        return str(error.args[0]) if error.args and isinstance(error.args[0], int) else ""
    return str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")


def _is_of_connection(error: BaseException) -> bool:
    """A library's error without a code: its word for a connection that is not there, or wrong use."""
    return any(kind.__name__ in ("OperationalError", "InterfaceError") for kind in type(error).__mro__)
