"""The journal in memory: it lives as long as this process. Good enough where nothing is ever replayed or restarted.

Bounded in everything: the orders that were touched last, the latest history rows, the latest letters.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from worker.adapters.journal.memoryarchive import MemoryArchive
from worker.core.journal import (
    BatchRecord,
    Claim,
    OrderRow,
    StoredOrder,
    Values,
    claimed,
    contested,
    recorded,
)

MEMORY = "memory"
"""What ``JOURNAL_URL`` says for this journal."""
ORDERS_KEPT = 500_000
CLAIM_S = 45.0
"""The default call timeout, and 30 s more: the longest that a call we gave up may take to be executed."""
ABANDONED_S = 60.0
"""How long after its expiry a claim that nobody cleared is looked after."""

_NEVER_SEEN = StoredOrder()


class MemoryJournal(MemoryArchive):
    """Implements all ports of the journal for one process life. Keeps the ``limit`` orders that were touched last."""

    def __init__(self, limit: int = ORDERS_KEPT, *, worker: str = "worker", claim_s: float = CLAIM_S) -> None:
        super().__init__()
        self._limit = limit
        self._worker = worker
        self._claim_us = round(claim_s * 1_000_000)
        self._orders: OrderedDict[int, StoredOrder] = OrderedDict()
        # The few orders that a sweeper has to look at, so that it need not look at all.
        self._open: dict[int, None] = {}

    async def known(self, order_ids: Sequence[int]) -> Mapping[int, Values]:
        """The applied values of these orders."""
        return {order_id: self._orders[order_id].values for order_id in order_ids if order_id in self._orders}

    async def claim(self, order_ids: Collection[int], *, wall_us: int) -> Mapping[int, OrderRow]:
        """Claim the orders for this worker."""
        by = Claim(self._worker, wall_us + self._claim_us)
        rows: dict[int, OrderRow] = {}
        for order_id in order_ids:
            after, rows[order_id] = claimed(self._orders.get(order_id, _NEVER_SEEN), by)
            self._put(order_id, after)
        self._forget_oldest()
        return rows

    async def record(self, record: BatchRecord) -> Mapping[int, Claim | None]:
        """Take down what came of a batch."""
        moved: dict[int, Claim | None] = {}
        for order_id, outcome in record.orders.items():
            stored = self._orders.get(order_id, _NEVER_SEEN)
            if contested(stored, outcome):
                moved[order_id] = stored.claim
            self._put(order_id, recorded(stored, outcome))
        self._forget_oldest()
        self._take_down(record)
        return moved

    async def due_echoes(self, wall_us: int, limit: int) -> Sequence[int]:
        """Orders whose echo is due, or whose claim ran out long ago."""
        due = [(since, order_id) for order_id in self._open if (since := self._due_us(order_id)) <= wall_us]
        return [order_id for _, order_id in islice(sorted(due), limit)]

    def _due_us(self, order_id: int) -> int:
        stored = self._orders[order_id]
        times = [] if stored.echo_us is None else [stored.echo_us]
        if stored.claim is not None:
            times.append(stored.claim.expires_us + round(ABANDONED_S * 1_000_000))
        return min(times)

    def _put(self, order_id: int, stored: StoredOrder) -> None:
        self._orders[order_id] = stored
        self._orders.move_to_end(order_id)
        if stored.claim is None and stored.echo_us is None:
            self._open.pop(order_id, None)
        else:
            self._open[order_id] = None

    def _forget_oldest(self) -> None:
        while len(self._orders) > self._limit:
            order_id, _ = self._orders.popitem(last=False)
            self._open.pop(order_id, None)
