"""The coalesced updates of one order (*entry*), and the entries that travel in one mutation (*batch*)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from worker.core.model import Update, Version
from worker.core.versions import merge_into, newest


class FlushReason(StrEnum):
    """Why a batch left."""

    SIZE = "size"
    BYTES = "bytes"
    LINGER = "linger"
    DRAIN = "drain"
    RESEND = "resend"
    CONTROL = "control"
    PROBE = "probe"


class Entry:
    """The coalesced updates of one order, with the history of the tries that concern it alone."""

    __slots__ = (
        "alone",
        "closed_at",
        "order_id",
        "refused_at",
        "rounds",
        "since",
        "unknown_at",
        "unknowns",
        "updates",
        "winners",
    )

    def __init__(self, order_id: int, updates: Iterable[Update], since: float) -> None:
        self.order_id = order_id
        self.updates = list(updates)
        self.winners = newest(self.updates)
        self.since = since
        self.closed_at: Version | None = None
        self.alone = False
        self.rounds = 0
        self.unknowns = 0
        self.unknown_at = 0
        self.refused_at: int | None = None

    @property
    def size(self) -> int:
        """Upper bound in bytes of what this entry costs in a call."""
        if len(self.updates) == 1:
            return self.updates[0].size
        return sum(update.size for update in set(self.winners.values()))

    def accepts(self, update: Update) -> bool:
        """Whether ``update`` belongs into this entry and not behind it."""
        if self.alone:
            return False
        return self.closed_at is None or update.version < self.closed_at

    def merge(self, update: Update) -> None:
        """Take one more update in. A refusal spoke of what was sent, not of what it is now."""
        self.refused_at = None
        self.updates.append(update)
        merge_into(self.winners, update)

    def drop(self, gone: Collection[Update]) -> None:
        """These are settled already: what is left is merged anew."""
        self.refused_at = None
        self.updates = [update for update in self.updates if update not in gone]
        self.winners = newest(self.updates)


@dataclass(slots=True, eq=False, kw_only=True)
class Batch:
    """Entries of one mutation. Without entries it is the control call.

    ``seq`` numbers the calls in the order in which they start; a batch that is sent again keeps its id. ``other`` and
    ``rest`` belong to the search for a refused order (``outcome.py``): the half that is not being sent now, and the
    entries that are neither.
    """

    id: str
    seq: int
    entries: Sequence[Entry]
    reason: FlushReason
    unknowns: int = 0
    other: Sequence[Entry] = ()
    rest: Sequence[Entry] = ()

    @property
    def everything(self) -> Sequence[Entry]:
        """All entries that travel with this batch, those of the search included."""
        return (*self.entries, *self.other, *self.rest)
