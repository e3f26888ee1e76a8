"""Statements that SQLAlchemy has, but not in one shape for both databases, or not quick enough for a batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Final, cast

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import UpdateBase

Insert = Callable[[Table], postgresql.Insert]
"""``INSERT ... ON CONFLICT``: one statement in two dialects of SQLAlchemy, the same words on both databases."""

SENT: Final = "sent"
"""What the rows of ``Rows`` are called in a statement."""
SIZES: Final = (10, 100)


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

    PostgreSQL runs a statement once per row otherwise; Python's sqlite3 lets go of the interpreter's lock at every row,
    and a busy main thread takes up to 5 ms to hand it back (``sys.getswitchinterval``). PostgreSQL gets an array for
    each column. SQLite gets all the values, in a statement for at most so many rows (``SIZES``) so that few have to be
    prepared, and leaves out those that fill it up; one JSON text would cost it three times as much.

    ``columns`` has PostgreSQL's types by name; the one called ``never_null`` tells a row from filling. Texts must be
    ``storable``.
    """

    def __init__(self, dialect: Dialect, columns: Mapping[str, str], *, never_null: str) -> None:
        self._columns = columns
        self._never_null = never_null
        self._is_sqlite = dialect.name == "sqlite"
        self.sizes: Final = SIZES if self._is_sqlite else (0,)

    def query(self, first: int, size: int = 0) -> str:
        """At most ``size`` rows as a table to select from; ``first`` is the number of their first parameter."""
        if self._is_sqlite:
            names = ", ".join(f"column{place} AS {name}" for place, name in enumerate(self._columns, start=1))
            width = len(self._columns)
            values = ", ".join(_marks(first + width * row, width) for row in range(size))
            found = f"SELECT {names} FROM (VALUES {values})"  # noqa: S608 - names of ours
            return f"(SELECT * FROM ({found}) WHERE {self._never_null} IS NOT NULL) AS {SENT}"  # noqa: S608
        types = enumerate(self._columns.values(), start=first)
        arrays = ", ".join(f"${number}::{type_}[]" for number, type_ in types)
        return f"unnest({arrays}) AS {SENT}({', '.join(self._columns)})"

    def parameters(self, rows: Sequence[tuple[object, ...]], size: int = 0) -> Iterable[object]:
        """Their parameters."""
        width = len(self._columns)
        if self._is_sqlite:
            return (*chain.from_iterable(rows), *repeat(None, width * (size - len(rows))))
        return map(list, zip(*rows, strict=True)) if rows else repeat([], width)


class Packed:
    """A statement over ``rows``, written by ``sql`` from the table that they are; ``values`` other parameters come
    first."""

    def __init__(self, rows: Rows, sql: Callable[[str], str], *, values: int = 0) -> None:
        self._rows = rows
        self._sql = {size: sql(rows.query(values + 1, size)) for size in rows.sizes}

    def run(self, connection: Connection, rows: Sequence[tuple[object, ...]], *values: object) -> int:
        """Carry it out, on SQLite with as many statements as it takes; how many rows it wrote."""
        most = max(self._sql) or len(rows)
        return sum(
            self._run(connection, rows[start : start + most], values) for start in range(0, len(rows), most or 1)
        )

    def _run(self, connection: Connection, rows: Sequence[tuple[object, ...]], values: tuple[object, ...]) -> int:
        size = next(size for size in self._sql if size >= len(rows) or not size)
        sent = (*values, *self._rows.parameters(rows, size))
        return connection.exec_driver_sql(self._sql[size], sent).rowcount


def _marks(first: int, count: int) -> str:
    return f"({', '.join(f'?{number}' for number in range(first, first + count))})"


def parameter(dialect: Dialect, number: int, type_: str) -> str:
    """A single value, as the drivers write it: ``number`` from 1."""
    return f"?{number}" if dialect.name == "sqlite" else f"${number}::{type_}"
