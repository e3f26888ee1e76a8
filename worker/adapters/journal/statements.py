"""Statements that SQLAlchemy has, but not in one shape for both databases, or not quick enough for a batch."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import UpdateBase

from worker.adapters.journal.encoding import dump_columns

Insert = Callable[[Table], postgresql.Insert]
"""``INSERT ... ON CONFLICT``: one statement in two dialects of SQLAlchemy, the same words on both databases."""

SENT: Final = "sent"
"""What the rows of ``Rows`` are called in a statement."""


def insert_for(dialect: Dialect) -> Insert:
    """How to insert. SQLAlchemy's two classes have the same methods; one of them stands for both in types."""
    return cast("Insert", sqlite.insert if dialect.name == "sqlite" else postgresql.insert)


class Bulk:
    """A statement for many rows, compiled once: rows go to the driver as they are.

    SQLAlchemy spends more on turning a hundred dictionaries into parameters than the driver on sending them. ``names``
    are the parameters in the order of the compiled statement, which is checked.
    """

    def __init__(self, dialect: Dialect, statement: UpdateBase, names: Sequence[str]) -> None:
        compiled = cast("Any", statement.compile(dialect=dialect, column_keys=list(names)))
        if tuple(compiled.positiontup) != tuple(names):
            raise TypeError(f"the parameters of the statement are {compiled.positiontup}, not {list(names)}")
        self._sql = str(compiled)

    def run(self, connection: Connection, rows: list[tuple[object, ...]]) -> None:
        """Carry it out for each row."""
        if rows:
            connection.exec_driver_sql(self._sql, rows)


class Rows:
    """Rows that a single statement reads, instead of one that is carried out for each row.

    PostgreSQL plans and runs a statement once per row otherwise; Python's sqlite3 lets go of the interpreter's lock at
    every row, and a busy main thread takes up to 5 ms to hand it back (``sys.getswitchinterval``). So SQLite gets all
    of them as one JSON text, PostgreSQL as an array for each column. ``columns`` has PostgreSQL's types by name. Texts
    must be ``storable``, integers have 64 bits.
    """

    def __init__(self, dialect: Dialect, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._is_sqlite = dialect.name == "sqlite"
        self._integers = [place for place, type_ in enumerate(columns.values()) if type_ != "text"]
        self.width: Final = 1 if self._is_sqlite else len(columns)
        """How many parameters they are."""

    def query(self, first: int = 1) -> str:
        """The rows as a table to select from; ``first`` is the number of their first parameter."""
        if self._is_sqlite:
            names = enumerate(self._columns)
            picked = ", ".join(f"json_extract(value, '$[{place}]') AS {name}" for place, name in names)
            return f"(SELECT {picked} FROM json_each(?{first})) AS {SENT}"  # noqa: S608 - names of ours
        types = enumerate(self._columns.values(), start=first)
        arrays = ", ".join(f"${number}::{type_}[]" for number, type_ in types)
        return f"unnest({arrays}) AS {SENT}({', '.join(self._columns)})"

    def parameters(self, rows: Sequence[tuple[object, ...]]) -> tuple[object, ...]:
        """Their parameters."""
        if self._is_sqlite:
            self._check(rows)
            return (dump_columns(rows),)
        return tuple(map(list, zip(*rows, strict=True))) if rows else ([],) * self.width

    def _check(self, rows: Sequence[Sequence[Any]]) -> None:
        """OverflowError for an integer that SQLite would take for a real number; PostgreSQL refuses it by itself."""
        for place in self._integers:
            array("q", [row[place] for row in rows if row[place] is not None])


def parameter(dialect: Dialect, number: int, type_: str) -> str:
    """A single value, as the drivers write it: ``number`` from 1."""
    return f"?{number}" if dialect.name == "sqlite" else f"${number}::{type_}"
