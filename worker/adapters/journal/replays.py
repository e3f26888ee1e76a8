"""Pauses and replays in SQL. Functions run inside a transaction of ``Database``."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update

from worker.adapters.journal.encoding import dump_json, load_json, storable
from worker.adapters.journal.statements import Insert
from worker.adapters.journal.tables import pauses, replay_items, replays
from worker.core.errors import UsageError
from worker.core.history import Pause, PauseKind, Replay, ReplayItem


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
            "state": item.state,
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
    c = replay_items.c
    statement = (
        select(c.place, c.copy_id, c.state, c.detail)
        .where(c.replay_id == replay_id, c.place > after)
        .order_by(c.place)
        .limit(limit)
    )
    return [ReplayItem(**row) for row in connection.execute(statement).mappings()]


def replay_of(connection: Connection, replay_id: str) -> Replay | None:
    """The replay of that id."""
    row = connection.execute(select(replays).where(replays.c.replay_id == replay_id)).mappings().first()
    return None if row is None else Replay(**{**row, "options": load_json(row["options"])})


def turn_replay(connection: Connection, replay_id: str, state: str, wall_us: int) -> None:
    """The replay is in this state now."""
    changed = update(replays).where(replays.c.replay_id == replay_id)
    connection.execute(changed.values(state=state, changed_us=wall_us))
