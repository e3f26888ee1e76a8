"""History on SQLite: a batch is one row of packed rows (``core/packing.py``), found by the orders that are in it.

A row for each event, with its indexes, cost more than all the rest of the journal. Packs cost a tenth of that, and what
finds them is one narrow entry for each order. Those entries go into their table by the thousand, because a batch of 500
orders would write as many of its pages; until then the orders of a pack are a list beside it, and whoever looks for
history puts them in first.

What belongs to a replay is looked for by its place in that, so such rows are rows of ``history``, and so is what was
written before there were packs. Numbers are those of one sequence: a pack takes as many as it has rows.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec
from sqlalchemy import Connection, Dialect, delete, func, select

from worker.adapters.journal.encoding import HISTORY_TYPES, dump_json, history_columns, history_of, load_json
from worker.adapters.journal.statements import Packed, Rows
from worker.adapters.journal.tables import history, history_found, history_packs, history_unsorted
from worker.core.bookkeeping import History
from worker.core.history import HistoryRow
from worker.core.journal import BatchRecord
from worker.core.packing import Columns, Pack, columns_of, packed, unpacked

SORTED_IN_AT: Final = 10_000
"""Rows of history that a process adds before the orders of their packs are put where they are found."""
LOOKED_AT: Final = 20
"""Packs that one step of pruning looks at."""

Numbered = tuple[int, HistoryRow]

_ROW: Final = {"row_id": "bigint", **HISTORY_TYPES}
_NAMES: Final = ", ".join(_ROW)
_ADD: Final = "INSERT INTO history_packs (first_row, rows, at_us, body) VALUES (?, ?, ?, ?)"
_ADD_UNSORTED: Final = "INSERT INTO history_unsorted (first_row, orders) VALUES (?, ?)"
_NEXT: Final = """
    SELECT 1 + max(
        coalesce((SELECT max(row_id) FROM history), 0),
        coalesce((SELECT first_row + rows - 1 FROM history_packs ORDER BY first_row DESC LIMIT 1), 0)
    )
"""
_SORT_IN: Final = """
    INSERT INTO history_found (order_id, first_row)
    SELECT value, first_row FROM history_unsorted, json_each(orders) WHERE true ORDER BY value, first_row
    ON CONFLICT DO NOTHING
"""
_p = history_packs.c


class Packs:
    """Takes down the history of batches. Methods run inside a transaction of ``Database``."""

    def __init__(self, dialect: Dialect) -> None:
        rows = Rows(dialect, _ROW, never_null="row_id")
        self._add_rows = Packed(rows, lambda sent: f"INSERT INTO history ({_NAMES}) SELECT {_NAMES} FROM {sent}")  # noqa: S608
        self._new = 0

    def add(self, connection: Connection, record: BatchRecord) -> None:
        """The history of a record."""
        count = len(record.history)
        if not count:
            return
        first: int = connection.exec_driver_sql(_NEXT).scalar_one()
        columns = _columns(record)
        if columns is None:
            rows = [(number, *history_columns(row)) for number, row in enumerate(record.history, first)]
            self._add_rows.run(connection, rows)
            return
        connection.exec_driver_sql(
            _ADD, (first, count, record.wall_us, dump_json(msgspec.structs.asdict(packed(columns, count))))
        )
        orders = {order_id for order_id in columns["order_id"] if order_id is not None}
        connection.exec_driver_sql(_ADD_UNSORTED, (first, dump_json(list(orders))))
        self._new += count
        if self._new >= SORTED_IN_AT:
            self._new = 0
            _sort_in(connection)


def _sort_in(connection: Connection) -> None:
    """Put the orders of all packs where they are found."""
    connection.exec_driver_sql(_SORT_IN)
    connection.execute(delete(history_unsorted))


def packed_page(connection: Connection, order_id: int, after: int, limit: int) -> list[Numbered]:
    """The rows of an order behind the number ``after``, wherever they are."""
    _sort_in(connection)
    found = heapq.merge(_rows(connection, order_id, after, limit), _packed_rows(connection, order_id, after))
    return list(islice(found, limit))


def prune_packs(connection: Connection, before_us: int, limit: int) -> int:
    """Forget packs at the oldest end, until ``limit`` rows are gone or more; how many there were."""
    _sort_in(connection)
    end = select(_p.first_row).order_by(_p.first_row).limit(LOOKED_AT)
    old = select(_p.first_row, _p.rows).where(_p.first_row.in_(end), _p.at_us < before_us).order_by(_p.first_row)
    gone = 0
    for first, rows in connection.execute(old).all():
        if gone >= limit:
            break
        _forget(connection, first)
        gone += rows
    return gone


def _forget(connection: Connection, first: int) -> None:
    body = connection.scalar(select(_p.body).where(_p.first_row == first))
    orders = {row.order_id for row in _loaded(body) if row.order_id is not None}
    f = history_found.c
    asked = func.json_each(dump_json(list(orders))).table_valued("value")
    connection.execute(delete(history_found).where(f.order_id.in_(select(asked.c.value)), f.first_row == first))
    connection.execute(delete(history_packs).where(_p.first_row == first))


def _rows(connection: Connection, order_id: int, after: int, limit: int) -> Iterator[Numbered]:
    c = history.c
    statement = select(history).where(c.order_id == order_id, c.row_id > after).order_by(c.row_id).limit(limit)
    return ((row["row_id"], history_of(row)) for row in connection.execute(statement).mappings().all())


def _packed_rows(connection: Connection, order_id: int, after: int) -> Iterator[Numbered]:
    """Read one pack after the other, as far as somebody asks."""
    f = history_found.c
    where = (f.order_id == order_id, _p.first_row + _p.rows > after + 1)
    chosen = select(_p.first_row).join(history_found, f.first_row == _p.first_row).where(*where)
    for first in connection.scalars(chosen.order_by(_p.first_row)).all():
        body = connection.scalar(select(_p.body).where(_p.first_row == first))
        for number, row in enumerate(_loaded(body), first):
            if number > after and row.order_id == order_id:
                yield number, row


def _loaded(body: object) -> list[HistoryRow]:
    return unpacked(Pack(**load_json(str(body))))


def _columns(record: BatchRecord) -> Columns | None:
    """None where its rows have to be rows of their own."""
    if isinstance(record.history, History) and (columns := record.history.columns()) is not None:
        return columns
    rows: Sequence[HistoryRow] = list(record.history)
    if any(row.replay_id is not None or row.at_us != record.wall_us for row in rows):
        return None
    return columns_of(rows)
