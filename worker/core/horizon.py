"""The time before which the journal may have forgotten what was applied.

Orders are forgotten after a while (JOURNAL_RETENTION_DAYS). Of an order without values nobody can tell whether it never
had any or they were forgotten, so an update that is older than the newest forgotten version cannot be judged: sending
it might take the order back. It is dead-lettered for a person to decide.
"""

from dataclasses import dataclass

from worker.core.entry import Entry
from worker.core.fields import INT64_MIN
from worker.core.journal import OrderRow
from worker.core.model import Dead, Reason, Update
from worker.core.times import format_time


@dataclass(slots=True)
class Horizon:
    """What is older than ``before_us`` may have been forgotten (the smallest integer: nothing was); ``days`` is the
    setting. Kept up to date by whoever prunes."""

    days: int
    before_us: int = INT64_MIN


def too_old(entry: Entry, row: OrderRow, horizon: Horizon) -> list[tuple[Update, Dead]]:
    """The updates of an entry that cannot be judged, with what is to be done with them."""
    if row.values:
        return []
    return [
        (update, Dead(reason=Reason.TOO_OLD_TO_JUDGE, detail=_detail(update, horizon)))
        for update in entry.updates
        if update.version.time_us < horizon.before_us
    ]


def _detail(update: Update, horizon: Horizon) -> str:
    return (
        f"it happened at {format_time(update.version.time_us)}, the journal knows nothing of the order, and what is "
        f"older than {format_time(horizon.before_us)} may have been forgotten (JOURNAL_RETENTION_DAYS={horizon.days})"
    )
