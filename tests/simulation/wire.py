"""The worker's side of the model broker: what aio-pika and aiormq are to the real consumer and settler.

Only the library is replaced: ``Consumer``, ``Generation``, the ack ledger and ``BrokerSettler`` are the product's.
Its channels are in ``channel.py``.
"""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from uuid import uuid4

from tests.simulation.broker import Broker
from tests.simulation.channel import WIRE_S, SimChannel
from tests.simulation.lane import SimLane
from worker.core.errors import CopyFailed
from worker.core.model import Properties


class SimLink:
    """What the consumer asks for channels. A killed worker's link is ``cut_off`` for ever; ``away``: no way there."""

    name = "intake"

    def __init__(self, broker: Broker, name: str, *, fast_lane: bool) -> None:
        self._fast_lane = fast_lane
        self._lane: SimLane | None = None
        self.endpoint = SimpleNamespace(rpc_timeout_s=5.0, retry_first_s=0.1, retry_cap_s=1.0)
        self.channel_of_now: SimChannel | None = None
        self.cut_off = False
        self.away = False
        self._broker = broker
        self._worker = name
        self._count = 0
        self.transport = SimpleNamespace(connection=SimpleNamespace(channel=self._open))

    @property
    def connected(self) -> bool:
        return self.channel_of_now is not None and not self.channel_of_now.is_closed

    async def get(self) -> "SimLink":
        await asyncio.sleep(WIRE_S)
        return self

    def lane(self, _connection: object) -> SimLane | None:
        """That of the channel opened last."""
        return self._lane

    async def drop(self) -> None:
        if self.channel_of_now is not None:
            self.channel_of_now.cut(0.0)
        await asyncio.sleep(0)

    async def _open(self, *, publisher_confirms: bool) -> SimChannel:
        assert not publisher_confirms
        await asyncio.sleep(WIRE_S)
        if self.cut_off or self.away:
            raise ConnectionError("this process is dead, or gets no answer")
        self._count += 1
        session = self._broker.open(self._worker, f"{self._worker}#{self._count}")
        self._lane = SimLane() if self._fast_lane else None
        self.channel_of_now = SimChannel(session, self._broker, self._lane)
        return self.channel_of_now


class SimPublisher:
    """Places copies, each confirmed after a moment. ``fails``: not stored; ``forgets``: stored, but the confirm is
    lost."""

    def __init__(self, broker: Broker, link: SimLink) -> None:
        self.fails: Callable[[], bool] = lambda: False
        self.forgets: Callable[[], bool] = lambda: False
        self._broker = broker
        self._link = link

    async def place(self, exchange: str, routing_key: str, body: bytes, properties: Properties) -> str:
        """See ``Publisher.place``."""
        assert properties.message_id is None
        assert exchange or routing_key == "dead"
        await asyncio.sleep(WIRE_S)
        if self._link.cut_off or self._link.away or self.fails():
            raise CopyFailed("not confirmed")
        self._broker.store(int(exchange.rpartition(".")[2]) if exchange else None, body, properties)
        await asyncio.sleep(WIRE_S)
        if self.forgets():
            raise CopyFailed("no confirm in time")
        return str(uuid4())
