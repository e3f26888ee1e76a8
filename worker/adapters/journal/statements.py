"""Statements that SQLAlchemy has, but not in one shape for both databases, or not quick enough for a batch."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import UpdateBase

Insert = Callable[[Table], postgresql.Insert]
"""``INSERT ... ON CONFLICT``: one statement in two dialects of SQLAlchemy, the same words on both databases."""


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
