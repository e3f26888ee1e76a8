"""What one order has waiting: nearly always one entry, several where milestones or unmerging hold them apart.

Milestones (statuses that must be seen by the platform) close their entry: newer updates go to a next entry of the lane.
So the entries of a lane stand in the order of their versions, and an update joins the first that takes it.
"""

from collections.abc import Collection, Sequence

from msgspec import Struct

from worker.core.entry import Entry
from worker.core.model import Update, Version


class Lane(Struct, eq=False, gc=False):
    """``out`` is whether an entry of it is in a batch that was handed out and is not settled."""

    waiting: list[Entry]
    out: bool = False

    def add(self, update: Update, now: float, *, milestones: Collection[int]) -> None:
        """Merge one update into the entry that takes it, or have it begin one that waits since ``now``."""
        for entry in self.waiting:
            if entry.accepts(update):
                entry.merge(update)
                break
        else:
            entry = Entry(update.order_id, [update], now)
            self.waiting.append(entry)
        if _is_one(update, milestones):
            self._close_behind(entry, update.version)

    def put_first(self, entries: Sequence[Entry], *, milestones: Collection[int]) -> None:
        """Put these in front of what waits. The last of them merges with it, if it merges with anything."""
        before = list(entries)
        if before and self.waiting and not before[-1].alone:
            self._merge_into(before.pop(), milestones)
        self.waiting[:0] = before

    def _merge_into(self, entry: Entry, milestones: Collection[int]) -> None:
        """All that waits; and the entry is closed again behind each milestone, the oldest first."""
        for update in [update for other in self.waiting for update in other.updates]:
            entry.merge(update)
        entry.closed_at = None
        self.waiting = [entry]
        for version in sorted({update.version for update in entry.updates if _is_one(update, milestones)}):
            self._close_behind(self.waiting[-1], version)

    def _close_behind(self, entry: Entry, version: Version) -> None:
        newer = [update for update in entry.updates if version < update.version]
        following = None
        if newer:
            following = Entry(entry.order_id, newer, entry.since)
            following.closed_at = entry.closed_at
            entry.keep([update for update in entry.updates if not version < update.version])
        entry.closed_at = version
        if following is not None:
            self.waiting.insert(self.waiting.index(entry) + 1, following)


def _is_one(update: Update, milestones: Collection[int]) -> bool:
    return bool(milestones) and update.fields.get("status") in milestones
