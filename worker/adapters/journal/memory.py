"""The journal in memory: it lives as long as this process. Good enough where nothing is ever replayed or restarted.

Bounded in everything: the orders that were touched last, the latest history rows, the latest letters.

Nearly all orders are at rest: no claim, no echo owed. Those are kept as bytes (MessagePack), a fifth of what the
objects take, and nothing that the garbage collector has to walk through: of 100,000 orders as objects each of its full
rounds takes 0.3 s, in which the worker stands still.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from msgspec import convert

from worker.adapters.journal.memoryarchive import MemoryArchive
from worker.core.bounded import drop_first
from worker.core.journal import (
    BatchRecord,
    Claim,
    OrderRow,
    StoredOrder,
    at_rest,
    claimed,
    contested,
    merged,
    recorded,
)
from worker.core.model import Version
from worker.core.values import Stamped, Values, together

MEMORY = "memory"
"""What ``JOURNAL_URL`` says for this journal."""
ORDERS_KEPT = 100_000
CLAIM_S = 45.0
"""The default call timeout, and 30 s more: the longest that a call we gave up may take to be executed."""
ABANDONED_S = 60.0
"""How long after its expiry a claim that nobody cleared is looked after."""

_NEVER_SEEN = StoredOrder()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, Version | None, dict[str, Any]]).decode


class MemoryJournal(MemoryArchive):
    """Implements all ports of the journal for one process life. Keeps the ``limit`` orders that were touched last."""

    def __init__(self, limit: int = ORDERS_KEPT, *, worker: str = "worker", claim_s: float = CLAIM_S) -> None:
        super().__init__()
        self._limit = limit
        self._worker = worker
        self._claim_us = round(claim_s * 1_000_000)
        self._resting: dict[int, bytes | StoredOrder] = {}
        self._open: dict[int, StoredOrder] = {}
        self._dropped = 0

    async def known(self, order_ids: Sequence[int]) -> Mapping[int, Values]:
        """The applied values of these orders."""
        found = ((order_id, self._find(order_id)) for order_id in order_ids)
        return {order_id: stored.values for order_id, stored in found if stored is not None}

    async def claim(self, order_ids: Collection[int], *, wall_us: int) -> Mapping[int, OrderRow]:
        """Claim the orders for this worker."""
        by = Claim(self._worker, wall_us + self._claim_us)
        stored, row = claimed(_NEVER_SEEN, by)
        rows = dict.fromkeys(order_ids, row)
        resting, opened = self._resting, self._open
        before = {}
        if not (resting.keys().isdisjoint(order_ids) and opened.keys().isdisjoint(order_ids)):
            before = {each: self._take(each) for each in order_ids if each in resting or each in opened}
        opened.update(dict.fromkeys(order_ids, stored))  # the unseen ones share what is the same for all of them
        for order_id, known in before.items():
            opened[order_id], rows[order_id] = claimed(known, by)
        self._forget_oldest()
        return rows

    async def record(self, record: BatchRecord) -> Mapping[int, Claim | None]:
        """Take down what came of a batch."""
        moved: dict[int, Claim | None] = {}
        resting, opened = self._resting, self._open
        for order_id, outcome in record.orders.items():
            stored = opened.pop(order_id, None) or self._take(order_id)
            if at_rest(stored, outcome):
                resting[order_id] = _packed(stored.revision, merged(stored.values, outcome.applied))
                continue
            if contested(stored, outcome):
                moved[order_id] = stored.claim
            self._put(order_id, recorded(stored, outcome))
        self._forget_oldest()
        self._take_down(record)
        return moved

    async def due_echoes(self, wall_us: int, limit: int) -> Sequence[int]:
        """Orders whose echo is due, or whose claim ran out long ago."""
        due = [(since, order_id) for order_id, stored in self._open.items() if (since := _due_us(stored)) <= wall_us]
        return [order_id for _, order_id in islice(sorted(due), limit)]

    def _find(self, order_id: int) -> StoredOrder | None:
        resting = self._resting.get(order_id)
        return self._open.get(order_id) if resting is None else _unpacked(resting)

    def _take(self, order_id: int) -> StoredOrder:
        """Take an order out; whatever is put back is the one that was touched last."""
        if (stored := self._open.pop(order_id, None)) is not None:
            return stored
        resting = self._resting.pop(order_id, None)
        return _NEVER_SEEN if resting is None else _unpacked(resting)

    def _put(self, order_id: int, stored: StoredOrder) -> None:
        if stored.claim is None and stored.echo_us is None:
            self._resting[order_id] = _packed(stored.revision, stored.values)
        else:
            self._open[order_id] = stored

    def _is_known(self, order_id: int) -> bool:
        return order_id in self._resting or order_id in self._open

    def _forget_oldest(self) -> None:
        over = len(self._resting) + len(self._open) - self._limit
        if over <= 0:
            return
        over += self._limit // 100  # some more, to look less often
        drop_first(self._resting, over)
        drop_first(self._open, len(self._resting) + len(self._open) - self._limit)
        self._dropped += over
        if self._dropped > self._limit // 2:
            # What was taken out of a dict leaves its place behind, and the dict doubles when all are used. Not by
            # ``copy``: that may copy the places too.
            self._resting, self._dropped = dict(self._resting), 0


def _due_us(stored: StoredOrder) -> int:
    times: Iterable[int] = () if stored.echo_us is None else (stored.echo_us,)
    if stored.claim is not None:
        times = (*times, stored.claim.expires_us + round(ABANDONED_S * 1_000_000))
    return min(times)


def _packed(revision: int, values: Values) -> bytes | StoredOrder:
    """As bytes, unless it holds what MessagePack cannot: lone surrogates, integers beyond 64 bits."""
    try:
        if (stamped := together(values)) is not None:
            return _encode((revision, stamped.version, stamped.fields))
        return _encode((revision, None, values))
    except (UnicodeEncodeError, OverflowError):
        return StoredOrder(values=values, revision=revision)


def _unpacked(resting: bytes | StoredOrder) -> StoredOrder:
    if isinstance(resting, StoredOrder):
        return resting
    revision, version, values = _decode(resting)
    if version is not None:
        return StoredOrder(values=Stamped(version, values), revision=revision)
    if values:
        values = {name: (convert(stamp, Version), value) for name, (stamp, value) in values.items()}
    return StoredOrder(values=values, revision=revision)
