"""Pauses, replays and the holders of queues in SQL. Functions run inside a transaction of ``Database``."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select, update

from worker.adapters.journal.encoding import dump_json, history_of, load_json, storable
from worker.adapters.journal.statements import Insert
from worker.adapters.journal.tables import history, holders, pauses, replay_items, replays
from worker.core.errors import UsageError
from worker.core.history import Fate, HistoryRow, Holder, ItemState, Pause, PauseKind, Replay, ReplayItem

_h = history.c
_i = replay_items.c
_items = select(_i.place, _i.copy_id, _i.state, _i.detail)


def add_pause(connection: Connection, insert_: Insert, pause: Pause) -> None:
    """The first one of its kind stays."""
    row = {
        "queue": storable(pause.queue),
        "kind": pause.kind.value,
        "detail": storable(pause.detail),
        "by": storable(pause.by),
        "since_us": pause.since_us,
    }
    connection.execute(insert_(pauses).on_conflict_do_nothing(), row)


def end_pauses(connection: Connection, queue: str) -> bool:
    """All of the queue; False if there was none."""
    return connection.execute(delete(pauses).where(pauses.c.queue == storable(queue))).rowcount > 0


def pauses_of(connection: Connection, queue: str) -> list[Pause]:
    """The oldest first."""
    c = pauses.c
    statement = select(pauses).where(c.queue == storable(queue)).order_by(c.since_us, c.kind)
    return [
        Pause(
            queue=row["queue"],
            kind=PauseKind(row["kind"]),
            detail=row["detail"],
            by=row["by"],
            since_us=row["since_us"],
        )
        for row in connection.execute(statement).mappings()
    ]


def add_replay(connection: Connection, replay: Replay) -> None:
    """UsageError where the id is taken."""
    if replay_of(connection, replay.replay_id) is not None:
        raise UsageError(f"there is a replay {replay.replay_id!r} already")
    row = {
        "replay_id": replay.replay_id,
        "queue": storable(replay.queue),
        "author": storable(replay.author),
        "options": dump_json(replay.options),
        "state": replay.state,
        "created_us": replay.created_us,
        "changed_us": replay.changed_us,
    }
    connection.execute(insert(replays), row)


def put_items(connection: Connection, insert_: Insert, replay_id: str, items: Sequence[ReplayItem]) -> None:
    """New ones are added, known places get the new state."""
    if not items:
        return
    rows = [
        {
            "replay_id": replay_id,
            "place": item.place,
            "copy_id": storable(item.copy_id),
            "state": item.state.value,
            "detail": storable(item.detail),
        }
        for item in items
    ]
    statement = insert_(replay_items)
    new = statement.excluded
    changed = {"copy_id": new.copy_id, "state": new.state, "detail": new.detail}
    connection.execute(statement.on_conflict_do_update(index_elements=["replay_id", "place"], set_=changed), rows)


def items_page(connection: Connection, replay_id: str, after: int, limit: int) -> list[ReplayItem]:
    """The plan behind the place ``after``."""
    statement = _items.where(_i.replay_id == replay_id, _i.place > after).order_by(_i.place).limit(limit)
    return [_item(row) for row in connection.execute(statement).mappings()]


def items_of(connection: Connection, replay_id: str, copy_ids: Sequence[str]) -> dict[str, ReplayItem]:
    """Those of these messages that are in the plan."""
    given = {storable(copy_id): copy_id for copy_id in copy_ids}
    rows = connection.execute(_items.where(_i.replay_id == replay_id, _i.copy_id.in_(given))).mappings()
    return {given[row["copy_id"]]: _item(row) for row in rows}


def item_states(connection: Connection, replay_id: str) -> dict[ItemState, int]:
    """How many messages are in which state."""
    counted = select(_i.state, func.count()).where(_i.replay_id == replay_id).group_by(_i.state)
    return {ItemState(state): number for state, number in connection.execute(counted)}


def outcomes_page(connection: Connection, replay_id: str, after: int, limit: int) -> dict[int, HistoryRow]:
    """The latest history row of the next places."""
    rows = _latest(replay_id).where(_h.replay_place > after).order_by(_h.replay_place).limit(limit).subquery()
    statement = select(history).join(rows, rows.c.row_id == _h.row_id)
    return {row["replay_place"]: history_of(row) for row in connection.execute(statement).mappings()}


def item_fates(connection: Connection, replay_id: str) -> dict[Fate, int]:
    """How many messages met which fate last."""
    rows = _latest(replay_id).subquery()
    counted = select(_h.disposition, _h.reason, func.count()).join(rows, rows.c.row_id == _h.row_id)
    found = connection.execute(counted.group_by(_h.disposition, _h.reason))
    return {Fate(disposition, reason): number for disposition, reason, number in found}


def replays_page(connection: Connection, queue: str, limit: int) -> list[Replay]:
    """The latest replays of a queue."""
    c = replays.c
    found = select(replays).where(c.queue == storable(queue)).order_by(c.created_us.desc(), c.replay_id).limit(limit)
    return [_replay(row) for row in connection.execute(found).mappings()]


def note_holder(connection: Connection, insert_: Insert, queue: str, holder: Holder) -> None:
    """This one holds the lock of the queue now."""
    row = {"queue": storable(queue), "by": storable(holder.by), "since_us": holder.since_us}
    statement = insert_(holders)
    new = statement.excluded
    changed = {"by": new.by, "since_us": new.since_us}
    connection.execute(statement.on_conflict_do_update(index_elements=["queue"], set_=changed), row)


def holder_of(connection: Connection, queue: str) -> Holder | None:
    """Who held it last."""
    c = holders.c
    row = connection.execute(select(c.by, c.since_us).where(c.queue == storable(queue))).mappings().first()
    return None if row is None else Holder(**row)


def replay_of(connection: Connection, replay_id: str) -> Replay | None:
    """The replay of that id."""
    row = connection.execute(select(replays).where(replays.c.replay_id == replay_id)).mappings().first()
    return None if row is None else _replay(row)


def turn_replay(connection: Connection, replay_id: str, state: str, wall_us: int) -> None:
    """The replay is in this state now."""
    changed = update(replays).where(replays.c.replay_id == replay_id)
    connection.execute(changed.values(state=state, changed_us=wall_us))


def _latest(replay_id: str) -> Select[Any]:
    """The number of the latest history row of each place."""
    latest = select(func.max(_h.row_id).label("row_id"), _h.replay_place).group_by(_h.replay_place)
    return latest.where(_h.replay_id == replay_id, _h.replay_place.is_not(None))


def _item(row: RowMapping) -> ReplayItem:
    return ReplayItem(**{**row, "state": ItemState(row["state"])})


def _replay(row: RowMapping) -> Replay:
    return Replay(**{**row, "options": load_json(row["options"])})
