"""An evening at a print works, for pictures: a worker with ordinary work, and dead letters of several reasons."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from tests.support.broker import Outside
from tests.support.tool import Tool
from tests.support.workerprocess import WorkerProcess
from tests.support.world import worker_settings
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology, topology
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker
from worker.core.model import Properties
from worker.simulator.options import Options
from worker.simulator.server import Simulator

METHODS: Final = {"Royal Mail": ("Tracked 24", "Tracked 48"), "DPD": ("Next Day",), "Evri": ("Standard",)}
REFUSED: Final = "DPD Local"
FIRST: Final = 46140000
PRINTED, PACKED, SHIPPED, DISPATCHED = 2, 4, 8, 64
TROUBLED: Final = Options(
    rejected_values={"shipping_carrier": {REFUSED: "Carrier is not available for this order"}},
    busy_orders=dict.fromkeys(range(FIRST + 20, FIRST + 5000, 97), -1),
)
SETTINGS: Final = {"STORM_RATIO": "1", "MAX_ATTEMPTS": "2", "RETRY_DELAYS_S": "1,2", "LINGER_S": "0.25"}
ORDERS_PER_S: Final = 12.0


def usual_names() -> Topology:
    """Those that the settings have where nothing is said."""
    return topology(
        exchange="order-updates",
        queue="order-updates.work",
        dead_queue="order-updates.dead",
        retry_delays_s=(1.0, 2.0),
        delivery_limit=100,
    )


@dataclass(slots=True)
class Evening:
    """Events as producers publish them. ``worker`` is the admin interface of who takes them."""

    outside: Outside
    simulator: Simulator
    exchange: str
    worker: str
    chance: random.Random = field(default_factory=lambda: random.Random(20261122))

    async def work(self) -> None:
        """Publish until cancelled, now more, now less."""
        numbers = itertools.count()
        for order_id in itertools.count(FIRST + 1):
            for event in self._events(order_id):
                properties = Properties(message_id=f"line-{next(numbers):06}", content_type="application/json")
                stamp = datetime.now(UTC).isoformat()
                body = {"id": order_id, **event, "occurred_at": stamp}
                await self.outside.publish(self.exchange, str(order_id), body, properties=properties)
            await asyncio.sleep(self.chance.uniform(0.2, 1.8) / ORDERS_PER_S)

    def _events(self, order_id: int) -> list[dict[str, Any]]:
        """What the line says of one order; of some of them what nobody can use."""
        carrier = self.chance.choice(list(METHODS))
        shipping = {"shipping_carrier": carrier, "shipping_method": self.chance.choice(METHODS[carrier])}
        events: list[dict[str, Any]] = [{"status": PRINTED}, {"status": PACKED, **shipping}, {"status": SHIPPED}]
        match self.chance.randrange(40):
            case 0 | 1:
                events[1]["shipping_carrier"] = REFUSED
            case 2:
                events.append({"status": "dispatched"})
            case 3:
                events += [{"status": DISPATCHED}, {"status": PACKED}]
        return events

    def calm_down(self) -> None:
        """The platform takes everything again."""
        self.simulator.options = replace(self.simulator.options, rejected_values={}, busy_orders={})


@asynccontextmanager
async def evening(folder: Path) -> AsyncIterator[tuple[Evening, Tool]]:
    """A broker, a platform and a worker of their own, and events; what happens, and the command line."""
    names = usual_names()
    async with AsyncExitStack() as stack:
        broker = PrivateBroker()
        stack.callback(broker.stop)
        await asyncio.to_thread(broker.start)
        simulator = Simulator(TROUBLED)
        address = await stack.enter_async_context(simulator.serve())
        outside = await Outside.connect(broker.url)
        stack.push_async_callback(outside.close)
        await declare(outside.connection, names)
        port = free_port()
        settings = {**worker_settings(broker.url, names, address, TROUBLED), **SETTINGS, "ADMIN_PORT": str(port)}
        worker = await WorkerProcess.start(settings, cwd=folder)
        stack.push_async_callback(worker.kill)
        await worker.until_heard("worker.ready")
        tool = Tool(folder, broker.url, names)
        tool.use(settings)
        happening = Evening(outside, simulator, names.exchanges[0].name, f"http://127.0.0.1:{port}")
        working = asyncio.create_task(happening.work(), name="producers")
        try:
            yield happening, tool
        finally:
            working.cancel()
            await asyncio.wait([working])
