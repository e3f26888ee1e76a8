"""The record of a batch without reading first: the claims handed out what the rows are.

The rows after the call are made from that beforehand, by the rules of the core, and written only where a row is still
the one that was handed out: a claim since then has raised the revision, a record for an older claim has changed the
values or the echo. Where a single row is another one, the whole record is made under the lock of the rows instead
(``orders.py``); ``OrderOutcome`` and merging bear it that some rows have then been written already.
"""

from itertools import chain
from typing import Final, Protocol

from msgspec import Struct
from sqlalchemy import Connection, Dialect

from worker.adapters.journal.claiming import NOTHING, Claims, Handed
from worker.adapters.journal.encoding import HISTORY_TYPES, dump_values, end_of_day, history_columns, newest_us
from worker.adapters.journal.packs import Packs
from worker.adapters.journal.statements import SENT, Packed, Rows, parameter
from worker.core.journal import BatchRecord, OrderOutcome, merged, owed

_CHANGE: Final = {
    "order_id": "bigint",
    "revision": "bigint",
    "seen": "text",
    "seen_echo_us": "bigint",
    "applied": "text",
    "newest_us": "bigint",
    "echo_us": "bigint",
}
_FIRST: Final = {"order_id": "bigint", "applied": "text", "newest_us": "bigint"}
_SAME: Final = f"""
    orders.order_id = {SENT}.order_id AND orders.revision = {SENT}.revision AND orders.applied = {SENT}.seen
    AND orders.echo_us IS NOT DISTINCT FROM {SENT}.seen_echo_us
"""
_VALUES: Final = f"applied = {SENT}.applied, newest_us = {SENT}.newest_us, claimed_by = NULL, claim_expires_us = NULL"
_SET: Final = f"{_VALUES}, echo_us = {SENT}.echo_us, touched_us ="
_HISTORY: Final = ", ".join(HISTORY_TYPES)

Change = tuple[int, int, str, int | None, str, int | None, int | None]
First = tuple[int, str, int | None]


class Changes(Struct):
    """How the rows will be, if they are still as the claims handed them out.

    SQLite spends most on the indexes of a row, and rewrites those of each column that a statement sets, changed or not.
    So there it is told apart what the columns in indexes have to do with: ``first`` is the first that is applied to an
    order, on the day of its claim; ``calm`` changes neither the echo nor the day; ``others`` may change everything.
    """

    first: list[First]
    calm: list[Change]
    others: list[Change]

    def __len__(self) -> int:
        return len(self.first) + len(self.calm) + len(self.others)


def changes_of(claims: Claims, record: BatchRecord, *, apart: bool) -> Changes | None:
    """None where the claims are not known, and where a claim stays. Told ``apart``, or all among the ``others``."""
    changes = Changes([], [], [])
    first, touched_us = changes.first, end_of_day(record.wall_us) if apart else None
    whole = True
    for order_id, outcome in record.orders.items():  # all of them, because each claim is asked for once
        handed = claims.take(order_id, outcome.revision)
        if handed is None or not outcome.known:
            whole = False
            continue
        row, seen, day_us = handed
        quiet = row.echo_us is None and outcome.echo_us is None and day_us == touched_us
        if quiet and seen == NOTHING and outcome.revision == 1:
            values = outcome.applied
            first.append((order_id, dump_values(values), newest_us(values)))
        else:
            (changes.calm if quiet else changes.others).append(_change(order_id, outcome, handed))
    return changes if whole else None


def _change(order_id: int, outcome: OrderOutcome, handed: Handed) -> Change:
    row, seen, _ = handed
    values = merged(row.values, outcome.applied)
    applied = seen if values is row.values else dump_values(values)
    return order_id, row.revision, seen, row.echo_us, applied, newest_us(values), owed(row.echo_us, outcome)


class Finishing(Protocol):
    """The statements for one kind of database."""

    def finish(self, connection: Connection, changes: Changes, record: BatchRecord) -> bool:
        """Write it. False where a row is not the one that was handed out: then the record is still to be made.

        One statement on PostgreSQL; a transaction on SQLite, which may then have written a part of it.
        """
        ...

    def add_history(self, connection: Connection, record: BatchRecord) -> None:
        """The history of a record, all at once."""
        ...


class PostgresFinishing:
    """Implements ``Finishing``, with one statement for a record."""

    def __init__(self, dialect: Dialect) -> None:
        changes = Rows(dialect, _CHANGE, never_null="order_id")
        history = Rows(dialect, HISTORY_TYPES, never_null="at_us")
        wall = parameter(dialect, 1, "bigint")
        self._add = Packed(history, lambda rows: f"INSERT INTO history ({_HISTORY}) SELECT {_HISTORY} FROM {rows}")  # noqa: S608
        self._changes, self._history = changes, history
        # All or nothing in one statement, which needs no transaction. Locked first, in the order of the ids.
        # S608: all names are ours, all values are parameters.
        self._finish = f"""
            WITH {SENT} AS MATERIALIZED (SELECT * FROM {changes.query(3)}),
            held AS MATERIALIZED (
                SELECT orders.order_id FROM orders, {SENT} WHERE {_SAME} ORDER BY orders.order_id FOR UPDATE OF orders
            ),
            whole AS MATERIALIZED (SELECT count(*) = {parameter(dialect, 2, "bigint")} AS held FROM held),
            finished AS (
                UPDATE orders SET {_SET} {wall} FROM {SENT}
                WHERE (SELECT held FROM whole) AND orders.order_id = {SENT}.order_id
            ),
            told AS (
                INSERT INTO history ({_HISTORY}) SELECT {_HISTORY} FROM {history.query(3 + len(_CHANGE))}
                WHERE (SELECT held FROM whole)
            )
            SELECT held FROM whole
        """  # noqa: S608

    def add_history(self, connection: Connection, record: BatchRecord) -> None:
        """See ``Finishing``."""
        self._add.run(connection, _rows_of(record))

    def finish(self, connection: Connection, changes: Changes, record: BatchRecord) -> bool:
        """See ``Finishing``."""
        if not changes.others:
            self.add_history(connection, record)
            return True
        sent = self._changes.parameters(changes.others), self._history.parameters(_rows_of(record))
        values = (end_of_day(record.wall_us), len(changes.others), *chain.from_iterable(sent))
        return bool(connection.exec_driver_sql(self._finish, values).scalar_one())


class SqliteFinishing:
    """Implements ``Finishing``, with a statement for each kind of change."""

    def __init__(self, dialect: Dialect) -> None:
        wall = parameter(dialect, 1, "bigint")
        changes = Rows(dialect, _CHANGE, never_null="order_id")
        self._first = Packed(Rows(dialect, _FIRST, never_null="order_id"), lambda rows: _first(rows, wall), values=1)
        self._calm = Packed(changes, lambda rows: f"UPDATE orders SET {_VALUES} FROM {rows} WHERE {_SAME}")  # noqa: S608
        self._others = Packed(
            changes,
            lambda rows: f"UPDATE orders SET {_SET} {wall} FROM {rows} WHERE {_SAME}",  # noqa: S608
            values=1,
        )
        self._packs = Packs(dialect)

    def add_history(self, connection: Connection, record: BatchRecord) -> None:
        """See ``Finishing``."""
        self._packs.add(connection, record)

    def finish(self, connection: Connection, changes: Changes, record: BatchRecord) -> bool:
        """See ``Finishing``."""
        touched_us = end_of_day(record.wall_us)
        written = self._first.run(connection, changes.first, touched_us)
        written += self._calm.run(connection, changes.calm)
        written += self._others.run(connection, changes.others, touched_us)
        if written != len(changes):
            return False
        self.add_history(connection, record)
        return True


def _rows_of(record: BatchRecord) -> list[tuple[object, ...]]:
    return [history_columns(row) for row in record.history]


def _first(rows: str, wall: str) -> str:
    """A row that is not there any more is made again. An UPDATE FROM would keep all rows aside first."""
    return f"""
        INSERT INTO orders (order_id, applied, newest_us, revision, touched_us)
        SELECT order_id, applied, newest_us, 1, {wall} FROM {rows} WHERE true
        ON CONFLICT (order_id) DO UPDATE SET
            applied = excluded.applied, newest_us = excluded.newest_us, claimed_by = NULL, claim_expires_us = NULL
        WHERE orders.revision = 1 AND orders.applied = '{NOTHING}' AND orders.echo_us IS NULL
    """  # noqa: S608 - names of ours
