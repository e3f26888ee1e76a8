"""What of a batch still has to be sent, and what an answered one has applied. Runs before and after every call."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from worker.core.entry import Batch, Entry
from worker.core.horizon import Horizon, too_old
from worker.core.journal import OrderRow
from worker.core.model import Ack, AckReason, Dead, Fields, Scalar, Settlement, Update, Version
from worker.core.terminal import barred
from worker.core.verdict import Item, Judgement
from worker.core.versions import Applied, by_version, standing, unsent

CONFIRMED = (Item.APPLIED, Item.REMAPPED)
NOTHING = OrderRow(values={}, revision=0)
EVERYTHING_IS_KNOWN = Horizon(days=0)


@dataclass(slots=True, kw_only=True)
class Request:
    """The fields to send by order id, the entries they come from, and the entries that have nothing left to send.

    ``settlements`` are decided without the call.
    """

    fields: dict[int, Fields] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    covered: list[Entry] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)


def request_of(
    batch: Batch,
    known: Mapping[int, OrderRow],
    terminal: Collection[int] = (),
    *,
    horizon: Horizon = EVERYTHING_IS_KNOWN,
) -> Request:
    """Hold a batch against what is ``known`` to be applied. Covered entries come with their settlements: all Ack.

    Updates that would change a ``terminal`` status, or are too old for the journal's ``horizon``, leave their entry,
    with a settlement each: Dead.
    """
    request = Request()
    for entry in batch.entries:
        row = known.get(entry.order_id, NOTHING)
        request.settlements += _dropped(batch, entry, [*barred(entry, row, terminal), *too_old(entry, row, horizon)])
        applied = row.versions
        fields = unsent(entry.winners, applied)
        if fields:
            request.fields[entry.order_id] = fields
            request.entries.append(entry)
        else:
            request.covered.append(entry)
            request.settlements += _acknowledged(batch, entry, applied)
    return request


def _dropped(batch: Batch, entry: Entry, found: Sequence[tuple[Update, Dead]]) -> list[Settlement]:
    if found:
        entry.drop([update for update, _ in found])
    return [
        Settlement(delivery=update.delivery, disposition=dead, update=update, batch_id=batch.id)
        for update, dead in sorted(found, key=lambda pair: pair[0].version)
    ]


def values_of(row: OrderRow) -> dict[str, Scalar]:
    """The greatest known value of each field."""
    return {name: value for name, (_, value) in row.values.items()}


def _acknowledged(batch: Batch, entry: Entry, applied: Applied) -> list[Settlement]:
    return [
        Settlement(
            delivery=update.delivery,
            disposition=Ack(standing(update, applied) or AckReason.SUPERSEDED),
            update=update,
            batch_id=batch.id,
        )
        for update in by_version(entry.updates)
    ]


def applied_by(request: Request, judgement: Judgement) -> dict[int, dict[str, tuple[Version, Scalar]]]:
    """Per order and field the version and value that the platform confirmed: what the journal has to learn."""
    return {
        entry.order_id: {
            name: (entry.winners[name].version, value) for name, value in request.fields[entry.order_id].items()
        }
        for entry in request.entries
        if (verdict := judgement.items.get(entry.order_id)) is not None and verdict.item in CONFIRMED
    }
