"""What of a batch still has to be sent, and what an answered one has applied. Runs before and after every call."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from worker.core.entry import Batch, Entry
from worker.core.fields import INT64_MIN
from worker.core.horizon import Horizon, too_old
from worker.core.journal import OrderRow
from worker.core.model import ACKS, AckReason, Dead, Fields, Scalar, Settlement, Update
from worker.core.terminal import STATUS, barred
from worker.core.values import Stamped, Values
from worker.core.verdict import Item, ItemVerdict, Judgement
from worker.core.versions import by_version, standing, unsent

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
    may_have_forgotten = horizon.before_us > INT64_MIN
    for entry in batch.entries:
        order_id = entry.order_id
        row = known.get(order_id, NOTHING)
        values = row.values
        if values and (status := values.get(STATUS)) is not None and status[1] in terminal:
            request.settlements += _dropped(batch, entry, barred(entry, row, terminal))
        elif may_have_forgotten and not values:
            request.settlements += _dropped(batch, entry, too_old(entry, row, horizon))
        fields = _news(entry, values)
        if fields:
            request.fields[order_id] = fields
            request.entries.append(entry)
        else:
            request.covered.append(entry)
            request.settlements += _acknowledged(batch, entry, values)
    return request


def _news(entry: Entry, values: Values) -> Fields:
    """What is newer than the known values. All of one update is that update's own mapping: nobody changes it."""
    sole = entry.sole
    if sole is not None and (not values or _is_news(sole, values)):
        return sole.fields
    return unsent(entry.winners, values)


def _is_news(update: Update, values: Values) -> bool:
    """Whether each of its fields is newer than the known value. Those mostly came together, with one version."""
    if isinstance(values, Stamped):
        return values.version < update.version or values.fields.keys().isdisjoint(update.fields)
    version, older = update.version, None
    for name in update.fields:
        known = values.get(name)
        if known is not None and known[0] is not older:
            older = known[0]
            if older >= version:
                return False
    return True


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


def _acknowledged(batch: Batch, entry: Entry, known: Values) -> list[Settlement]:
    return [
        Settlement(
            delivery=update.delivery,
            disposition=ACKS[standing(update, known) or AckReason.SUPERSEDED],
            update=update,
            batch_id=batch.id,
        )
        for update in by_version(entry.updates)
    ]


def applied_by(request: Request, judgement: Judgement) -> dict[int, Values]:
    """Per order and field the version and value that the platform confirmed: what the journal has to learn."""
    applied: dict[int, Values] = {}
    all_applied, items = judgement.all_applied, judgement.items
    for entry, (order_id, fields) in zip(request.entries, request.fields.items(), strict=True):
        if all_applied or _is_confirmed(items.get(order_id)):
            sole = entry.sole
            if sole is not None:
                applied[order_id] = Stamped(sole.version, fields)
            else:
                winners = entry.winners
                applied[order_id] = {name: (winners[name].version, value) for name, value in fields.items()}
    return applied


def _is_confirmed(verdict: ItemVerdict | None) -> bool:
    return verdict is not None and verdict.item in CONFIRMED
