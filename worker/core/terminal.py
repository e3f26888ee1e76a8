"""Orders that are over: a status that the journal knows to be terminal is not changed by what comes later.

An update that would change it is dead-lettered for a person to judge, whole, with its other fields. It is let through
where a replay says so in so many words (header ``ow-allow-terminal``). The same status again is no change.
"""

from collections.abc import Collection

from worker.core.entry import Entry
from worker.core.headers import read_history
from worker.core.journal import OrderRow
from worker.core.model import Dead, Fields, Reason, Update, Version
from worker.core.values import Values

STATUS = "status"


def barred(entry: Entry, row: OrderRow, terminal: Collection[int]) -> list[tuple[Update, Dead]]:
    """The updates of an entry that would take its order out of a terminal status, with what is to be done with them.

    Older ones than the known status would not change it: they are superseded like anything else.
    """
    if STATUS not in row.values:
        return []
    _, status = row.values[STATUS]
    return [
        (update, Dead(reason=Reason.TERMINAL_ORDER, detail=_detail(update, status)))
        for update in entry.updates
        if leaves(update.fields, update.version, row.values, terminal) and not _is_allowed(update)
    ]


def leaves(fields: Fields, version: Version, known: Values, terminal: Collection[int]) -> bool:
    """Whether these fields would take an order of which that is ``known`` out of a terminal status."""
    if STATUS not in known or STATUS not in fields:
        return False
    since, status = known[STATUS]
    return status in terminal and since < version and fields[STATUS] != status


def _is_allowed(update: Update) -> bool:
    return read_history(update.delivery.properties.headers).allow_terminal


def _detail(update: Update, status: object) -> str:
    # No time in it: letters are grouped by their errors, and each would be a group of its own.
    return (
        f"status: the order has the terminal status {status}, and this would change it to {update.fields[STATUS]}; "
        f"a replay with --allow-terminal does it all the same"
    )
