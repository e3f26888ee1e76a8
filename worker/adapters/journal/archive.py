"""History and retention in SQL. Functions run inside a transaction of ``Database``."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, Table, and_, delete, exists, select

from worker.adapters.journal.encoding import history_of
from worker.adapters.journal.packs import prune_packs
from worker.adapters.journal.statements import Insert
from worker.adapters.journal.tables import audit, history, horizon, letters, orders, replay_items, replays
from worker.core.fields import INT64_MIN
from worker.core.history import HistoryRow, LetterState


def history_page(connection: Connection, order_id: int, after: int, limit: int) -> list[tuple[int, HistoryRow]]:
    """The rows of an order behind the number ``after``."""
    c = history.c
    statement = select(history).where(c.order_id == order_id, c.row_id > after).order_by(c.row_id).limit(limit)
    return [(row["row_id"], history_of(row)) for row in connection.execute(statement).mappings()]


def prune(connection: Connection, upsert: Insert, before_us: int, limit: int) -> int:
    """One step of forgetting; 0 when nothing older is left."""
    packs = prune_packs(connection, before_us, limit) if connection.dialect.name == "sqlite" else 0
    return (
        packs
        + _prune_history(connection, before_us, limit)
        + _prune_letters(connection, before_us, limit)
        + _prune_replays(connection, before_us, limit)
        + _prune_orders(connection, upsert, before_us, limit)
        + _delete(connection, audit, audit.c.number, audit.c.at_us < before_us, limit)
    )


def horizon_us(connection: Connection) -> int:
    """Behind the newest version that was forgotten."""
    found = connection.scalar(select(horizon.c.before_us))
    return INT64_MIN if found is None else found


def _prune_history(connection: Connection, before_us: int, limit: int) -> int:
    """Rows are in the order of time, but for what workers' clocks differ; the oldest end is looked at."""
    c = history.c
    end = select(c.row_id, c.at_us).order_by(c.row_id).limit(limit).subquery()
    chosen = select(end.c.row_id).where(end.c.at_us < before_us).scalar_subquery()
    return _count(connection.execute(delete(history).where(c.row_id.in_(chosen))))


def _prune_letters(connection: Connection, before_us: int, limit: int) -> int:
    c = letters.c
    gone = and_(c.state_us < before_us, c.state != LetterState.DEAD.value)
    return _delete(connection, letters, c.seq, gone, limit)


def _prune_replays(connection: Connection, before_us: int, limit: int) -> int:
    c, item = replays.c, replay_items.c
    old = select(c.replay_id).where(c.changed_us < before_us)
    some = select(item.replay_id, item.place).where(item.replay_id.in_(old)).limit(limit).subquery()
    found = exists().where(some.c.replay_id == item.replay_id, some.c.place == item.place)
    items = _count(connection.execute(delete(replay_items).where(found)))
    empty = ~exists().where(item.replay_id == c.replay_id)
    return items + _delete(connection, replays, c.replay_id, and_(c.changed_us < before_us, empty), limit)


def _prune_orders(connection: Connection, upsert: Insert, before_us: int, limit: int) -> int:
    c, letter = orders.c, letters.c
    dead = exists().where(letter.order_id == c.order_id, letter.state == LetterState.DEAD.value)
    idle = and_(c.touched_us < before_us, c.claim_expires_us.is_(None), c.echo_us.is_(None))
    oldest = select(c.order_id).where(idle, ~dead).order_by(c.touched_us).limit(limit)
    # Rows that somebody holds are in use: passed over, which also never makes a circle of waits.
    chosen = oldest.with_for_update(skip_locked=True, of=orders).scalar_subquery()
    forgotten = list(connection.execute(delete(orders).where(c.order_id.in_(chosen), idle).returning(c.newest_us)))
    times = [row.newest_us for row in forgotten if row.newest_us is not None]
    if times:
        _raise_horizon(connection, upsert, max(times) + 1)
    return len(forgotten)


def _raise_horizon(connection: Connection, upsert: Insert, before_us: int) -> None:
    statement = upsert(horizon).values(only=1, before_us=before_us)
    new = statement.excluded.before_us
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[horizon.c.only], set_={"before_us": new}, where=horizon.c.before_us < new
        )
    )


def _delete(
    connection: Connection, table: Table, key: ColumnElement[Any], which: ColumnElement[bool], limit: int
) -> int:
    chosen = select(key).where(which).limit(limit).scalar_subquery()
    return _count(connection.execute(delete(table).where(key.in_(chosen), which)))


def _count(result: CursorResult[Any]) -> int:
    return max(0, result.rowcount)
