"""The edge to the database libraries: which of their errors means "again at once", which "the journal is away".

Facts it is built around: SQLAlchemy wraps what a statement raises and keeps the driver's error as ``orig``; asyncpg's
errors carry the SQLSTATE (PostgreSQL, appendix A), those of sqlite3 the result code of SQLite. What fails while
connecting reaches us unwrapped: OSError, asyncpg's own classes. A wrong statement or value is our own fault and passes
as it is: waiting would not mend it.
"""

import sqlite3
import sys
from enum import Enum, auto
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.core.masking import mask_text

_TRY_AGAIN: Final = frozenset({"40001", "40P01", "55P03"})  # serialisation failure, deadlock, lock not available
_MISSING_TABLE: Final = frozenset({"42P01", "42703"})  # undefined table or column
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_CONNECTING: Final = (OSError, TimeoutError, PoolTimeout)
_WRONG_VALUE: Final = (ValueError, TypeError, OverflowError)
_LONGEST: Final = 300


class Failure(Enum):
    """What to do after an error of the database."""

    AGAIN = auto()
    """Somebody was in the way; the transaction was rolled back."""
    LOST = auto()
    """The connection is gone: another one may be better."""
    AWAY = auto()
    """The database refuses or cannot do its work: wait."""
    OURS = auto()
    """A fault of this program."""


def kind_of(error: Exception) -> Failure:
    """What this error, raised by a statement or while connecting, means."""
    if not isinstance(error, DBAPIError):
        return Failure.AWAY if isinstance(error, _CONNECTING) or _is_asyncpgs(error) else Failure.OURS
    if error.connection_invalidated:
        return Failure.LOST
    state = str(getattr(error.orig, "sqlstate", None) or "")
    code = getattr(error.orig, "sqlite_errorcode", None)
    if state in _TRY_AGAIN or (code is not None and code & 0xFF in _BUSY):
        return Failure.AGAIN
    if state.startswith(("08", "57P")):
        return Failure.LOST
    if state in _MISSING_TABLE:
        return Failure.AWAY
    # asyncpg tells of a value that it cannot encode by a ValueError below SQLAlchemy's most general class.
    ours = isinstance(error, DataError | IntegrityError | ProgrammingError) or isinstance(_root(error), _WRONG_VALUE)
    return Failure.OURS if ours else Failure.AWAY


def _is_asyncpgs(error: Exception) -> bool:
    """Where nobody has imported it, none of its errors can be."""
    asyncpg = sys.modules.get("asyncpg")
    return asyncpg is not None and isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError)


def told(error: BaseException) -> str:
    """Class and text of the error, in one line and without passwords or values of statements."""
    cause = _root(error)
    first = str(cause).partition("\n")[0]
    return mask_text(f"{type(cause).__name__}: {first}".rstrip(": "))[:_LONGEST]


def _root(error: BaseException) -> BaseException:
    """The driver's own error, below SQLAlchemy's imitation of it."""
    cause = (isinstance(error, DBAPIError) and error.orig) or error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return cause
