"""The record of a batch without reading first: the claims handed out what the rows are.

The rows after the call are made from that beforehand, by the rules of the core, and written only where a row is still
the one that was handed out: a claim since then has raised the revision, a record for an older claim has changed the
values or the echo. Where a single row is another one, the whole record is made under the lock of the rows instead
(``orders.py``); ``OrderOutcome`` and merging bear it that some rows have then been written already.
"""

from itertools import chain
from typing import Final

from sqlalchemy import Connection, Dialect

from worker.adapters.journal.archive import sort_in
from worker.adapters.journal.claiming import Claims
from worker.adapters.journal.encoding import HISTORY_TYPES, dump_values, end_of_day, history_columns, newest_us
from worker.adapters.journal.statements import SENT, Packed, Rows, parameter
from worker.core.journal import BatchRecord, OrderOutcome, merged, owed

Change = tuple[object, ...]
_CHANGE: Final = {
    "order_id": "bigint",
    "revision": "bigint",
    "seen": "text",
    "seen_echo_us": "bigint",
    "applied": "text",
    "newest_us": "bigint",
    "echo_us": "bigint",
}
_SAME: Final = f"""
    orders.order_id = {SENT}.order_id AND orders.revision = {SENT}.revision AND orders.applied = {SENT}.seen
    AND orders.echo_us IS NOT DISTINCT FROM {SENT}.seen_echo_us
"""
_SET: Final = f"""
    applied = {SENT}.applied, newest_us = {SENT}.newest_us, claimed_by = NULL, claim_expires_us = NULL,
    echo_us = {SENT}.echo_us, touched_us =
"""
_HISTORY: Final = ", ".join(HISTORY_TYPES)
SORTED_IN_AT: Final = 5_000
"""Rows of history that a process adds on SQLite before they are sorted in."""


def changes_of(claims: Claims, record: BatchRecord) -> list[Change] | None:
    """How the rows will be, if they are still as the claims handed them out; None where the claims are not known, and
    where a claim stays."""
    changes = [_change(claims, order_id, outcome) for order_id, outcome in record.orders.items()]
    known = [change for change in changes if change is not None]
    return known if len(known) == len(changes) else None


def _change(claims: Claims, order_id: int, outcome: OrderOutcome) -> Change | None:
    handed = claims.take(order_id, outcome.revision)
    if handed is None or not outcome.known:
        return None
    row, seen = handed
    values = merged(row.values, outcome.applied)
    applied = seen if values is row.values else dump_values(values)
    echo_us = owed(row.echo_us, outcome)
    return order_id, row.revision, seen, row.echo_us, applied, newest_us(values), echo_us


class Finishing:
    """The statements for one kind of database."""

    def __init__(self, dialect: Dialect) -> None:
        self._is_sqlite = dialect.name == "sqlite"
        self._new = 0
        changes = Rows(dialect, _CHANGE, never_null="order_id")
        history = Rows(dialect, HISTORY_TYPES, never_null="at_us")
        wall = parameter(dialect, 1, "bigint")
        # S608: all names are ours, all values are parameters.
        table = "history_new" if self._is_sqlite else "history"
        self._add = Packed(history, lambda rows: f"INSERT INTO {table} ({_HISTORY}) SELECT {_HISTORY} FROM {rows}")  # noqa: S608
        self._update = Packed(
            changes,
            lambda rows: f"UPDATE orders SET {_SET} {wall} FROM {rows} WHERE {_SAME}",  # noqa: S608
            values=1,
        )
        self._changes, self._history = changes, history
        # All or nothing in one statement, which needs no transaction. Locked first, in the order of the ids.
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
        """The history of a record, all at once."""
        self._add.run(connection, _rows_of(record))
        self._new += len(record.history)
        if self._is_sqlite and self._new >= SORTED_IN_AT:
            self._new = 0
            sort_in(connection)

    def finish(self, connection: Connection, changes: list[Change], record: BatchRecord) -> bool:
        """Write it. False where a row is not the one that was handed out: then the record is still to be made.

        One statement on PostgreSQL; a transaction on SQLite, which may then have written a part of it.
        """
        if changes and not self._is_sqlite:
            sent = self._changes.parameters(changes), self._history.parameters(_rows_of(record))
            values = (end_of_day(record.wall_us), len(changes), *chain.from_iterable(sent))
            return bool(connection.exec_driver_sql(self._finish, values).scalar_one())
        if self._update.run(connection, changes, end_of_day(record.wall_us)) != len(changes):
            return False
        self.add_history(connection, record)
        return True


def _rows_of(record: BatchRecord) -> list[tuple[object, ...]]:
    return [history_columns(row) for row in record.history]
