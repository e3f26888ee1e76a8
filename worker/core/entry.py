"""The coalesced updates of one order (*entry*), and the entries that travel in one mutation (*batch*)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct

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


class Entry(Struct, eq=False, gc=False):
    """The coalesced updates of one order, with the history of the tries that concern it alone.

    Which update wins which field is worked out when it is asked for: most entries have a single one.
    """

    order_id: int
    updates: list[Update]
    since: float
    closed_at: Version | None = None
    alone: bool = False
    rounds: int = 0
    unknowns: int = 0
    unknown_at: int = 0
    refused_at: int | None = None
    _winners: dict[str, Update] | None = None

    @property
    def winners(self) -> dict[str, Update]:
        """Per field the update with the greatest version: what a merged call has to send."""
        if self._winners is None:
            self._winners = newest(self.updates)
        return self._winners

    @property
    def sole(self) -> Update | None:
        """The update that wins every field; None where several have a share. Nearly always there is one."""
        updates = self.updates
        if len(updates) == 1:
            return updates[0]
        winners = set(self.winners.values())
        return winners.pop() if len(winners) == 1 else None

    @property
    def size(self) -> int:
        """Upper bound in bytes of what this entry costs in a call."""
        updates = self.updates
        if len(updates) == 1:
            return updates[0].size
        return sum([update.size for update in set(self.winners.values())])

    def accepts(self, update: Update) -> bool:
        """Whether ``update`` belongs into this entry and not behind it."""
        if self.alone:
            return False
        return self.closed_at is None or update.version < self.closed_at

    def merge(self, update: Update) -> None:
        """Take one more update in. A refusal spoke of what was sent, not of what it is now."""
        self.refused_at = None
        self.updates.append(update)
        if self._winners is not None:
            merge_into(self._winners, update)

    def keep(self, updates: list[Update]) -> None:
        """Only these of its updates are left: they are merged anew."""
        self.updates = updates
        self._winners = None

    def drop(self, gone: Collection[Update]) -> None:
        """These are settled already."""
        self.refused_at = None
        self.keep([update for update in self.updates if update not in gone])


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
