"""``order-worker dead list``: how many dead letters there are, by reason, detail, order, day or hour.

With a durable journal its index is read, not the queue: nothing is taken, whatever its length. With the journal in
memory there is no index, so the queue itself is looked at.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from worker.adapters.amqp.deadletters import Look
from worker.adapters.journal.memory import MEMORY
from worker.adapters.journal.opening import checked_journal
from worker.cli.config import start
from worker.cli.deadlook import finish, look_at
from worker.cli.deadqueue import (
    AsJson,
    Given,
    MessageIds,
    OfDetail,
    OfReason,
    Orders,
    Queue,
    Since,
    Until,
    Worn,
    print_json,
    print_table,
    say,
    time_or_none,
)
from worker.config import Settings
from worker.core.deadletter import DeadLetter, Group, Groups
from worker.core.errors import WorkerError
from worker.core.history import DAY_US, HOUR_US, GroupBy, Sought, Tally
from worker.core.letterindex import indexed
from worker.core.times import format_time
from worker.lookups import reasons_of, total
from worker.ports import wall_us
from worker.replay.reaching import at_the_queue

COMPARE_S = 2.0
"""How long the broker may take to tell its count: the list does not need it."""
MOST_ROWS = 1000

By = Annotated[GroupBy, typer.Option("--by", help="What to count by.")]

Rows = Sequence[Group | Tally]


def list_(
    *,
    by: By = GroupBy.REASON,
    reason: OfReason = None,
    detail: OfDetail = None,
    order: Orders = None,
    message_id: MessageIds = None,
    since: Since = None,
    until: Until = None,
    queue: Queue = None,
    as_json: AsJson = False,
    yes: Worn = False,
) -> None:
    """Count the dead letters by reason, detail, order, day or hour, with the oldest, the newest, the newest's detail.

    Read from the journal's index; only with JOURNAL_URL=memory the queue itself is looked at.
    """
    settings = start()
    given = Given(
        queue=queue, reason=reason, detail=detail, orders=order, message_ids=message_id, since=since, until=until
    )
    sought = given.sought(settings)
    if settings.journal_url == MEMORY:
        _list_queue(settings, sought, by, as_json=as_json, worn_too=yes)
    else:
        asyncio.run(_list_index(settings, sought, by, as_json=as_json))


# -- from the index ---------------------------------------------------------------------------------------------------


async def _list_index(settings: Settings, sought: Sought, by: GroupBy, *, as_json: bool) -> None:
    async with checked_journal(settings.journal_url) as journal:
        rows = await journal.tallies(sought, by, limit=MOST_ROWS)
        matching = total(await reasons_of(journal, sought))
        known = total(await reasons_of(journal, Sought(queue=sought.queue)))
    try:
        async with asyncio.timeout(2 * COMPARE_S), at_the_queue(settings, sought.queue, wait_s=COMPARE_S) as queue:
            ready: int | None = await queue.size()
    except (WorkerError, TimeoutError) as error:
        ready = None
        say(f"not compared with the queue: {str(error) or 'the broker does not answer'}")
    if as_json:
        unknown = None if ready is None else max(0, ready - known)
        about = {"queue": sought.queue, "source": "index", "messages": ready, "seen": matching, "unindexed": unknown}
        print_json(about | _groups_json(rows, by))
    elif rows:
        _print_groups(rows, by)
    _compare(sought, rows, matching=matching, known=known, ready=ready)


def _compare(sought: Sought, rows: Rows, *, matching: int, known: int, ready: int | None) -> None:
    """What a person should know besides the numbers."""
    if not known:
        say(f"the index knows no dead letters of {sought.queue!r}")
    elif not matching:
        say(f"none of the {known} dead letters matches")
    if len(rows) == MOST_ROWS:
        say(f"only the {MOST_ROWS} most frequent are shown")
    if ready is not None and ready > known:
        say(f"{sought.queue!r} has {ready - known} more than the index knows: `order-worker dead sync` adds them")
    elif ready is not None and ready < known:
        say(
            f"{sought.queue!r} has {known - ready} less than the index knows: somebody holds them just now, or moved "
            "them; `order-worker dead sync` finds out"
        )


# -- from the queue ---------------------------------------------------------------------------------------------------


def _list_queue(settings: Settings, sought: Sought, by: GroupBy, *, as_json: bool, worn_too: bool) -> None:
    groups = Groups(by)

    def receive(letter: DeadLetter) -> bool:
        if sought.matches(indexed(letter, queue=sought.queue, update=None, now_us=wall_us())):
            groups.add(letter)
        return True

    look = look_at(settings, sought.queue, receive, command="list", worn_too=worn_too)
    if as_json:
        print_json(_about(sought.queue, look) | _groups_json(groups.by_count(), by))
    elif look.seen:
        _print_groups(groups.by_count(), by)
    finish(sought.queue, look)


def _about(queue: str, look: Look) -> dict[str, Any]:
    return {"queue": queue, "source": "queue", "messages": look.there, "seen": look.seen}


# -- what is shown ----------------------------------------------------------------------------------------------------


def _groups_json(groups: Rows, by: GroupBy) -> dict[str, Any]:
    found = [
        {
            by.value: _key(group.key, by),
            "count": group.count,
            "oldest": time_or_none(group.oldest_us),
            "newest": time_or_none(group.newest_us),
            "example": group.example,
        }
        for group in groups
    ]
    return {"by": by.value, "groups": found}


def _key(key: str | int | None, by: GroupBy) -> str | int | None:
    """A day as its date, an hour as its beginning."""
    if by is GroupBy.HOUR and isinstance(key, int):
        return format_time(key * HOUR_US)[:13] + ":00Z"
    return format_time(key * DAY_US)[:10] if by is GroupBy.DAY and isinstance(key, int) else key


def _print_groups(groups: Rows, by: GroupBy) -> None:
    heads = (by.value.capitalize(), "Count", "Oldest", "Newest", "Detail of the newest")
    print_table(
        heads,
        (
            (
                str(_key(group.key, by) or "unknown"),
                str(group.count),
                time_or_none(group.oldest_us) or "?",
                time_or_none(group.newest_us) or "?",
                group.example,
            )
            for group in groups
        ),
    )
