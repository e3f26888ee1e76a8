"""One call that is being taken apart, and what the shell has to do when that is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worker.core.entry import Batch, Entry
from worker.core.model import APPLIED, SUPERSEDED, Disposition, Fields, Settlement, Update
from worker.core.outage import Outage
from worker.core.versions import by_version


@dataclass(slots=True, kw_only=True)
class Effects:
    """What the shell has to do after a call. ``suspected`` are the orders refused alone for the first time."""

    settlements: list[Settlement] = field(default_factory=list)
    outage: Outage | None = None
    accepted: bool = False
    remapped: int = 0
    suspected: list[int] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Turn:
    """One call that is being taken apart: what went out, when, and what came of it so far."""

    batch: Batch
    sent: Mapping[int, Fields]
    now: float
    effects: Effects

    def settle(self, update: Update, disposition: Disposition) -> None:
        """Decide one delivery."""
        settlement = Settlement(
            delivery=update.delivery, disposition=disposition, update=update, batch_id=self.batch.id
        )
        self.effects.settlements.append(settlement)

    def contributors(self, entry: Entry) -> list[Update]:
        """The updates whose values were really sent, oldest first."""
        sent = self.sent[entry.order_id]
        return by_version({entry.winners[name] for name in sent if name in entry.winners})

    def apply(self, entries: Sequence[Entry]) -> None:
        """The platform took them: everything in them is acknowledged."""
        batch_id, settled = self.batch.id, self.effects.settlements
        for entry in entries:
            updates, sole = entry.updates, entry.sole
            contributors = self.contributors(entry) if sole is None else (sole,)
            for update in by_version(updates) if len(updates) > 1 else updates:
                disposition = APPLIED if update in contributors else SUPERSEDED
                settled.append(
                    Settlement(delivery=update.delivery, disposition=disposition, update=update, batch_id=batch_id)
                )
