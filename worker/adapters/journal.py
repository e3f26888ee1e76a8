"""The journal in memory: versions live as long as this process. Good enough where nothing is ever replayed or
restarted."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from worker.core.model import Scalar, Version

ORDERS_KEPT = 500_000


class MemoryJournal:
    """Implements ``ports.Journal`` for one process life. Keeps the ``limit`` orders that were touched last."""

    def __init__(self, limit: int = ORDERS_KEPT) -> None:
        self._limit = limit
        self._orders: OrderedDict[int, dict[str, Version]] = OrderedDict()

    async def read(self, order_ids: Sequence[int]) -> Mapping[int, Mapping[str, Version]]:
        """The applied versions of these orders."""
        orders = self._orders
        return {order_id: orders[order_id] for order_id in order_ids if order_id in orders}

    async def write(self, applied: Mapping[int, Mapping[str, tuple[Version, Scalar]]]) -> None:
        """Note what was applied; lower versions than the known ones change nothing."""
        for order_id, fields in applied.items():
            known = self._orders.setdefault(order_id, {})
            for name, (version, _) in fields.items():
                if name not in known or known[name] < version:
                    known[name] = version
            self._orders.move_to_end(order_id)
        while len(self._orders) > self._limit:
            self._orders.popitem(last=False)
