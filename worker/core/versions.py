"""Which value of an order is the newest, and who is already covered by what the platform has.

One rule settles most deliveries: a delivery is done when for each of its fields a version at least as great as its own
is applied. Whether it was sent itself, merged away, overtaken or delivered twice makes no difference.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Final

from worker.core.bounded import drop_first
from worker.core.identity import Identity, identity
from worker.core.journal import merged
from worker.core.model import AckReason, Delivery, Fields, Scalar, Update, Version
from worker.core.values import Stamped, Values

_version_of: Final = attrgetter("version")


def newest(updates: Sequence[Update]) -> dict[str, Update]:
    """Per field the update with the greatest version, of equal ones the first: what a merged call has to send."""
    if not updates:
        return {}
    latest = max(updates, key=_version_of)  # the first of several
    names = latest.fields.keys()
    if all(update.fields.keys() <= names for update in updates):
        return dict.fromkeys(names, latest)  # nearly always: events of an order change the same fields
    winners: dict[str, Update] = {}
    for update in updates:
        merge_into(winners, update)
    return winners


def merge_into(winners: dict[str, Update], update: Update) -> None:
    """Let ``update`` win the fields in which nothing newer is there. Of equal versions the first one stays."""
    version = update.version
    for name in update.fields:
        best = winners.get(name)
        if best is None or best.version < version:
            winners[name] = update


def unsent(winners: Mapping[str, Update], known: Values) -> dict[str, Scalar]:
    """The fields and values that are newer than what is known to be applied: exactly these may be sent."""
    news: dict[str, Scalar] = {}
    for name, update in winners.items():
        applied = known.get(name)
        if applied is None or applied[0] < update.version:
            news[name] = update.fields[name]
    return news


def by_version(updates: Iterable[Update]) -> list[Update]:
    """The updates, oldest first: the order in which they may be settled."""
    return sorted(updates, key=_version_of)


class KnownVersions:
    """The applied versions that this worker has seen lately: enough to tell at arrival that an update is covered.

    Versions only ever grow, so what is known here is true whatever other workers do meanwhile; what is not known is
    asked of the journal before the call. Holds the ``limit`` orders that were applied last.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._orders: dict[int, Values] = {}

    def learn(self, applied: Mapping[int, Values]) -> None:
        """Take note of what was applied and journalled. It is kept as it is, and must not be changed."""
        orders = self._orders
        known = {order_id: orders.pop(order_id) for order_id in orders.keys() & applied.keys()}
        orders.update(applied)
        for order_id, values in known.items():
            orders[order_id] = merged(values, applied[order_id])
        if len(orders) > self._limit:
            drop_first(orders, len(orders) - self._limit + self._limit // 20)  # some more, to look less often

    def covered(self, updates: Iterable[Update]) -> dict[Update, AckReason]:
        """Those of these updates for which there is nothing left to do, as far as that is known, and why."""
        orders, found = self._orders, {}
        for update in updates:
            known = orders.get(update.order_id)
            if known is None or (type(known) is Stamped and known.version < update.version):
                continue  # nearly all of them
            if (reason := standing(update, known)) is not None:
                found[update] = reason
        return found


def standing(update: Update, known: Values) -> AckReason | None:
    """Why this update has nothing left to do, or None when one of its fields is newer than what is applied."""
    return standing_of(update.fields, update.version, known)


def standing_of(fields: Fields, version: Version, known: Values) -> AckReason | None:
    """The same for fields and their version."""
    if isinstance(known, Stamped):
        if known.version < version or not known.fields.keys() >= fields.keys():
            return None
        return AckReason.DUPLICATE if known.version == version else AckReason.SUPERSEDED
    reason = AckReason.SUPERSEDED
    for name in fields:
        applied = known.get(name)
        if applied is None or applied[0] < version:
            return None
        if applied[0] == version:
            reason = AckReason.DUPLICATE
    return reason


class FirstSight:
    """Remembers the versions of deliveries whose channel was lost: a redelivery keeps what it had at first sight.

    Equal messages are told apart by their order. Holds at most ``limit`` deliveries: one lost channel leaves a prefetch
    window, and several may be lost before a message comes again, because what was never delivered may come first.
    Beyond that the oldest are forgotten, and count as redelivered without memory.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[Identity, deque[Version]] = {}
        self._count = 0

    def remember(self, delivery: Delivery, version: Version) -> None:
        """Keep the version of a delivery that the broker is going to hand over again."""
        while self._count >= self._limit:
            self._count -= len(self._seen.pop(next(iter(self._seen))))
        self._seen.setdefault(identity(delivery), deque()).append(version)
        self._count += 1

    def recall(self, delivery: Delivery) -> Version | None:
        """The remembered version, once; None for a delivery that was never seen before."""
        if not delivery.redelivered or not self._count:
            return None
        key = identity(delivery)
        versions = self._seen.get(key)
        if not versions:
            return None
        first = versions.popleft()
        self._count -= 1
        if not versions:
            del self._seen[key]
        return first
