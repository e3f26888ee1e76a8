"""Producers of a run: a steady load of events that goes on through whatever happens to the broker, and keeps books."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import uuid4

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from tests.support.accounting import Accounting
from tests.support.orderbooks import Key
from worker.adapters.amqp.connection import dial, is_open
from worker.adapters.amqp.deadline import within
from worker.core.errors import BrokerRefused, ConnectionLost

TICK_S = 0.05
AGAIN_S = 0.1
CONFIRM_S = 3.0
APART = 1_000_000
"""Every other refused event is of an order that has no other ones: no later value can supersede it, so it is missed
for certain when it is lost."""


class Producer:
    """Publishes ``rate_per_s`` events of random orders, confirmed; every ``refused_every``-th is one to be refused,
    every ``invalid_every``-th is none by the contract, every ``twice_every``-th is published twice (0: none of them).

    A publish that fails is noted as unsure and not repeated, its connection is replaced: by one to the next address
    where ``url`` names several, separated by commas. ``events`` counts them all. The load ends with the block, or with
    ``stop``, which waits until every publish has its answer.
    """

    def __init__(
        self,
        accounting: Accounting,
        *,
        url: str,
        exchange: str,
        orders: Sequence[int],
        rate_per_s: float = 300.0,
        refused_every: int = 50,
        invalid_every: int = 0,
        twice_every: int = 0,
        seed: int = 1,
    ) -> None:
        self.events = 0
        self.unsure = 0
        self._accounting = accounting
        self._urls = url.split(",")
        self._turn = 0
        self._exchange = exchange
        self._orders = orders
        self._per_tick = max(1, round(rate_per_s * TICK_S))
        self._refused_every = refused_every
        self._invalid_every = invalid_every
        self._twice_every = twice_every
        self._chance = random.Random(seed)
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._stopping.clear()
        self._task = asyncio.create_task(self._run(), name="producer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End the load; twice is harmless."""
        self._stopping.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    @property
    def running(self) -> bool:
        """Whether the load goes on."""
        return self._task is not None

    async def publish(self, count: int) -> None:
        """Publish so many events at once."""
        keys = [key for _ in range(count) for key in self._make()]
        try:
            channel = await self._open()
        except (ConnectionLost, BrokerRefused):
            for key in keys:
                self._give_up(key)
            return
        if not all(await asyncio.gather(*(self._send(channel, key) for key in keys))):
            await self._drop()

    def _make(self) -> list[Key]:
        """The next event, as often as it is published: a second time at once, before a later one of its order."""
        self.events += 1
        refused, invalid = self._falls_on(self._refused_every), self._falls_on(self._invalid_every)
        order_id = self._chance.choice(self._orders)
        if refused and self.events // self._refused_every % 2:
            order_id += APART
        key = self._accounting.make(order_id, refused=refused, invalid=invalid)
        return [key, key] if self._falls_on(self._twice_every) else [key]

    def _falls_on(self, every: int) -> bool:
        return bool(every) and self.events % every == 0

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._stopping.is_set():
            before = self.unsure
            await self.publish(self._per_tick)
            # Behind after a fault, it does not catch up: the load is steady.
            due = max(due + TICK_S, loop.time() + (AGAIN_S if self.unsure > before else 0.0))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._stopping.wait()
        await self._drop()

    async def _send(self, channel: AbstractChannel, key: Key) -> bool:
        wire = Basic.Properties(content_type="application/json", delivery_mode=2, message_id=uuid4().hex)
        try:
            async with within(CONFIRM_S, "publishing"):
                await channel.basic_publish(
                    self._accounting.body(key),
                    exchange=self._exchange,
                    routing_key=str(key.order_id),
                    properties=wire,
                    mandatory=True,
                )
        except ConnectionLost:
            self._give_up(key)
            return False
        return True

    def _give_up(self, key: Key) -> None:
        self.unsure += 1
        self._accounting.unsure(key)

    async def _open(self) -> AbstractChannel:
        if self._connection is None or not is_open(self._connection):
            await self._drop()
            url = self._urls[self._turn % len(self._urls)]
            self._turn += 1
            self._connection = await dial(url, name="producer", heartbeat_s=10, timeout_s=CONFIRM_S)
        if self._channel is None or self._channel.is_closed:
            assert self._connection.transport is not None
            async with within(CONFIRM_S, "opening a channel"):
                self._channel = await self._connection.transport.connection.channel(on_return_raises=True)
        return self._channel

    async def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(ConnectionLost):
                async with within(CONFIRM_S, "closing the producer's connection"):
                    await connection.close()
