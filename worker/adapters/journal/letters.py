"""The index of dead letters in SQL. Functions run inside a transaction of ``Database``."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Dialect, func, literal_column, or_, select, update

from worker.adapters.journal.encoding import LETTER_COLUMNS, letter_columns, letter_of, storable
from worker.adapters.journal.statements import Bulk, Insert
from worker.adapters.journal.tables import letters
from worker.core.history import DAY_US, HOUR_US, GroupBy, IndexedLetter, LetterState, Sought, Tally

_c = letters.c


def letters_bulk(dialect: Dialect, insert: Insert) -> Bulk:
    """How letters are added: a copy that is there already stays as it is."""
    statement = insert(letters).inline().on_conflict_do_nothing(index_elements=[_c.copy_id])
    return Bulk(dialect, statement, LETTER_COLUMNS)


def add_letters(connection: Connection, bulk: Bulk, found: Sequence[IndexedLetter]) -> None:
    """All at once."""
    bulk.run(connection, [letter_columns(letter) for letter in found])


def letters_page(connection: Connection, sought: Sought, after: int, limit: int) -> list[IndexedLetter]:
    """The next letters behind the number ``after``."""
    statement = select(letters).where(*_meant(sought), _c.seq > after).order_by(_c.seq).limit(limit)
    return [letter_of(row) for row in connection.execute(statement).mappings()]


def letter_tallies(connection: Connection, sought: Sought, by: GroupBy, limit: int) -> list[Tally]:
    """Counts by reason, order or day."""
    key = _key(by)
    count, newest, latest = func.count(), func.max(_c.failed_us), func.max(_c.seq)
    groups = connection.execute(
        select(key.label("key"), count.label("n"), func.min(_c.failed_us), newest, latest)
        .where(*_meant(sought))
        .group_by(key)
        .order_by(count.desc(), newest.desc())
        .limit(limit)
    ).all()
    details = select(_c.seq, _c.detail).where(_c.seq.in_([group[4] for group in groups]))
    examples = {row.seq: row.detail for row in connection.execute(details)}
    return [
        Tally(key=value, count=number, oldest_us=oldest, newest_us=last, example=examples[seq])
        for value, number, oldest, last, seq in groups
    ]


def mark_letters(connection: Connection, copy_ids: Sequence[str], state: LetterState, wall_us: int) -> int:
    """Put the letters into this state; how many were in another one."""
    moved = update(letters).where(_c.copy_id.in_(map(storable, copy_ids)), _c.state != state.value)
    return max(0, connection.execute(moved.values(state=state.value, state_us=wall_us)).rowcount)


def see_letters(connection: Connection, copy_ids: Sequence[str], wall_us: int) -> int:
    """They are in the queue; how many of them are known."""
    there = update(letters).where(_c.copy_id.in_(map(storable, copy_ids)))
    values = {"state": LetterState.DEAD.value, "state_us": None, "seen_us": wall_us}
    return max(0, connection.execute(there.values(values)).rowcount)


def remove_unseen(connection: Connection, queue: str, since_us: int, failed_us: int, wall_us: int) -> int:
    """What failed before ``failed_us`` and was not seen since ``since_us`` is gone."""
    unseen = or_(_c.seen_us.is_(None), _c.seen_us < since_us)
    gone = update(letters).where(
        _c.queue == storable(queue), _c.state == LetterState.DEAD.value, _c.failed_us < failed_us, unseen
    )
    return max(0, connection.execute(gone.values(state=LetterState.REMOVED.value, state_us=wall_us)).rowcount)


def _meant(sought: Sought) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = [_c.queue == storable(sought.queue), _c.state == sought.state.value]
    if sought.reason is not None:
        wanted.append(_c.reason == storable(sought.reason))
    if sought.detail is not None:
        wanted.append(_c.detail == storable(sought.detail))
    if sought.order_ids:
        wanted.append(_c.order_id.in_(sought.order_ids))
    if sought.message_ids:
        ids = [storable(each) for each in sought.message_ids]
        wanted.append(or_(_c.message_id.in_(ids), _c.copy_id.in_(ids)))
    if sought.since_us is not None:
        wanted.append(_c.failed_us >= sought.since_us)
    if sought.until_us is not None:
        wanted.append(_c.failed_us < sought.until_us)
    return wanted


def _key(by: GroupBy) -> ColumnElement[Any]:
    match by:
        case GroupBy.REASON:
            return _c.reason
        case GroupBy.DETAIL:
            return _c.detail
        case GroupBy.ORDER:
            return _c.order_id
        case GroupBy.DAY:
            return _number_of(DAY_US)
        case GroupBy.HOUR:
            return _number_of(HOUR_US)


def _number_of(span_us: int) -> ColumnElement[Any]:
    # The span is a literal: PostgreSQL would take two parameters for two different expressions.
    return _c.failed_us.op("/")(literal_column(str(span_us)))
