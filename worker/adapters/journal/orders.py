"""The rows of the orders in SQL: reading them, and recording under their lock (``finishing.py`` has a quicker way).

Claims and records take the rows in the order of their ids, so that two workers wait for each other and never in a
circle.

Versions are merged here, in Python, while the rows are locked, and not in SQL: there is one rule for what is newer
(that of the core), a tuple of four compares the same everywhere, and an order is one row however many fields it has.
The lock (``FOR UPDATE``, or SQLite's one writer) is what makes that correct, and it is held for two statements.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Dialect,
    Row,
    Select,
    TableValuedAlias,
    bindparam,
    func,
    select,
    update,
)

from worker.adapters.journal.encoding import dump_json, dump_values, end_of_day, load_values, newest_us
from worker.adapters.journal.statements import Bulk, insert_for
from worker.adapters.journal.tables import orders
from worker.core.fields import INT64_MIN
from worker.core.journal import Claim, OrderOutcome, StoredOrder, contested, recorded
from worker.core.values import Values

SCANNED: Final = 5_000
"""Orders that one look for abandoned claims goes through."""
BEFORE_ALL: Final = INT64_MIN

_c = orders.c
_FINISH = (
    update(orders)
    .where(_c.order_id == bindparam("of"))
    .values(
        applied=bindparam("applied"),
        newest_us=bindparam("newest_us"),
        claimed_by=bindparam("claimed_by"),
        claim_expires_us=bindparam("claim_expires_us"),
        echo_us=bindparam("echo_us"),
        touched_us=bindparam("touched_us"),
    )
)
_FINISHED = ("applied", "newest_us", "claimed_by", "claim_expires_us", "echo_us", "touched_us", "of")


class Orders:
    """The statements for one kind of database. Methods run inside a transaction of ``Database``."""

    def __init__(self, dialect: Dialect) -> None:
        self._is_sqlite = dialect.name == "sqlite"
        self._insert = insert_for(dialect)
        self._finish = Bulk(dialect, _FINISH, _FINISHED)
        self._add = self._insert(orders).on_conflict_do_nothing()
        ids = self._ids()
        read = select(_c.order_id, _c.applied, _c.revision, _c.claimed_by, _c.claim_expires_us, _c.echo_us)
        self._read: Select[Any] = read.where(_c.order_id.in_(select(ids.c.value)))
        self._lock = self._read.order_by(_c.order_id).with_for_update()

    def known(self, connection: Connection, order_ids: Iterable[int]) -> dict[int, Values]:
        """The applied values of these orders."""
        rows = connection.execute(self._read, {"ids": self._list(order_ids)})
        return {row.order_id: load_values(row.applied) for row in rows}

    def record(
        self, connection: Connection, outcomes: Mapping[int, OrderOutcome], wall_us: int
    ) -> dict[int, Claim | None]:
        """Merge what was applied, clear claims, note echoes; the contested orders with the claim that stands."""
        stored = self._locked(connection, outcomes, wall_us)
        finished = {order_id: recorded(stored[order_id], outcome) for order_id, outcome in outcomes.items()}
        self._finish.run(connection, [_finish(order_id, finished[order_id], wall_us) for order_id in sorted(finished)])
        return {
            order_id: finished[order_id].claim
            for order_id, outcome in outcomes.items()
            if contested(stored[order_id], outcome)
        }

    def due(self, connection: Connection, wall_us: int, limit: int) -> list[int]:
        """Orders whose echo is due, the longest due first."""
        owed = select(_c.order_id).where(_c.echo_us <= wall_us).order_by(_c.echo_us, _c.order_id).limit(limit)
        return list(connection.scalars(owed))

    def abandoned(self, connection: Connection, expired_us: int, after: int) -> tuple[list[int], int]:
        """Orders whose claim expired before that, among the next ``SCANNED`` behind the order ``after``; and the last
        one that was looked at, ``BEFORE_ALL`` at the end of the table.

        An index of the claims would cost two changes for each order of each batch.
        """
        some = select(_c.order_id, _c.claim_expires_us).where(_c.order_id > after).order_by(_c.order_id).limit(SCANNED)
        found = connection.execute(some).all()
        expired = [order_id for order_id, until_us in found if until_us is not None and until_us <= expired_us]
        return expired, found[-1].order_id if len(found) == SCANNED else BEFORE_ALL

    def _locked(self, connection: Connection, order_ids: Collection[int], wall_us: int) -> dict[int, StoredOrder]:
        stored = self._lock_them(connection, order_ids)
        if missing := sorted(set(order_ids).difference(stored)):  # never claimed, or forgotten since
            rows = [
                {"order_id": each, "applied": "{}", "revision": 0, "touched_us": end_of_day(wall_us)}
                for each in missing
            ]
            connection.execute(self._add, rows)
            stored = self._lock_them(connection, order_ids)
        return stored

    def _lock_them(self, connection: Connection, order_ids: Iterable[int]) -> dict[int, StoredOrder]:
        rows: Iterable[Row[Any]] = connection.execute(self._lock, {"ids": self._list(order_ids)})
        return {row.order_id: _stored(row) for row in rows}

    def _ids(self) -> TableValuedAlias:
        if self._is_sqlite:
            return func.json_each(bindparam("ids")).table_valued("value", name="asked")
        ids = bindparam("ids", type_=ARRAY(BigInteger))
        return func.unnest(ids).table_valued("value", name="asked").render_derived()

    def _list(self, order_ids: Iterable[int]) -> object:
        """One parameter however many orders: the statement is prepared once."""
        ids = sorted(order_ids)
        return dump_json(ids) if self._is_sqlite else ids


def _stored(row: Row[Any]) -> StoredOrder:
    return StoredOrder(
        values=load_values(row.applied),
        revision=row.revision,
        claim=_claim(row.claimed_by, row.claim_expires_us),
        echo_us=row.echo_us,
    )


def _claim(worker: str | None, expires_us: int | None) -> Claim | None:
    return None if worker is None or expires_us is None else Claim(worker, expires_us)


def _finish(order_id: int, stored: StoredOrder, wall_us: int) -> tuple[object, ...]:
    worker, expires_us = stored.claim or (None, None)
    return (
        dump_values(stored.values),
        newest_us(stored.values),
        worker,
        expires_us,
        stored.echo_us,
        end_of_day(wall_us),
        order_id,
    )
