"""The two brokers on which intake and settler have to behave alike: the model in memory, and a real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Protocol

import pytest

from tests.pipeline.modelbroker import ModelIntake, ModelSettler, Queue
from tests.support.broker import DEADLINE_S, Lanes, Outside, RecordingSink, endpoint
from tests.support.proxy import TcpProxy
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.settler import BrokerSettler
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.model import Delivery, Properties
from worker.ports import Intake, Settler


class Stage(Protocol):
    """A broker with an intake and settlers on it, and the ways to disturb and to inspect it."""

    @property
    def intake(self) -> Intake: ...

    @property
    def sink(self) -> RecordingSink: ...

    def settler(self, *, places_copies: bool = True) -> Settler:
        """A settler; one that ``places_copies`` not cannot reach the dead-letter queue."""
        ...

    def holds(self, delivery: Delivery) -> bool:
        """Whether it can still be settled."""
        ...

    async def publish(self, *order_ids: int) -> None:
        """One event for each."""
        ...

    async def lose(self) -> None:
        """Break the connection."""
        ...

    async def ready(self) -> int:
        """Messages in the work queue that nobody has in hand."""
        ...

    async def dead(self) -> list[bytes]:
        """Bodies in the dead-letter queue."""
        ...


async def until(condition: Callable[[], object]) -> None:
    """Poll what only the broker knows. Raises TimeoutError after 20 s."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def until_ready(stage: Stage, count: int) -> None:
    """Wait for so many ready messages; quorum queues publish their counts with a delay."""
    async with asyncio.timeout(DEADLINE_S):
        while await stage.ready() != count:  # noqa: ASYNC110 - only the broker knows
            await asyncio.sleep(0.02)


class ModelStage:
    """The fake of the pipeline tests."""

    def __init__(self) -> None:
        self.sink = RecordingSink()
        self.queue = Queue()
        self.intake = ModelIntake(self.queue, prefetch=50, reopen_s=0.0)

    def settler(self, *, places_copies: bool = True) -> ModelSettler:
        settler = ModelSettler(self.intake, delays_s=(0.2, 60.0), takes_s=0.0)
        settler.refuses = lambda _: not places_copies
        return settler

    def holds(self, delivery: Delivery) -> bool:
        return self.intake.holds(delivery)

    async def publish(self, *order_ids: int) -> None:
        for order_id in order_ids:
            body = b'{"id": %d, "status": 4}' % order_id
            self.queue.publish(body, Properties(message_id=f"m{order_id}"), str(order_id))

    async def lose(self) -> None:
        self.intake.lose()

    async def ready(self) -> int:
        return len(self.queue.ready)

    async def dead(self) -> list[bytes]:
        return [copy.body for copy in self.queue.dead]


class RealStage:
    """A real queue, consumed through a proxy that can be cut."""

    def __init__(self, proxy: TcpProxy, url: str, outside: Outside, names: Topology) -> None:
        self.sink = RecordingSink()
        self._proxy = proxy
        self._outside = outside
        self._names = names
        self.links = (Link(endpoint(proxy.url()), name="consume"), Link(endpoint(url), name="publish"))
        self.intake = Consumer(self.links[0], queue=names.work_queue, prefetch=50)
        self.publisher = Publisher(self.links[1])

    def settler(self, *, places_copies: bool = True) -> BrokerSettler:
        return BrokerSettler(
            self.intake,
            self.publisher,
            dead_queue=self._names.dead_queue if places_copies else "no-such-queue",
            retry_exchanges=self._names.retry_exchanges,
            worker="test",
        )

    def holds(self, delivery: Delivery) -> bool:
        return self.intake.holds(delivery)

    async def publish(self, *order_ids: int) -> None:
        for order_id in order_ids:
            body = {"id": order_id, "status": 4}
            await self._outside.publish(self._names.exchanges[0].name, str(order_id), body)

    async def lose(self) -> None:
        await self._proxy.cut()

    async def ready(self) -> int:
        return await self._outside.ready(self._names.work_queue)

    async def dead(self) -> list[bytes]:
        count = await self._outside.ready(self._names.dead_queue)
        return [(await self._outside.take(self._names.dead_queue)).body for _ in range(count)]


@asynccontextmanager
async def model_stage() -> AsyncIterator[ModelStage]:
    stage = ModelStage()
    yield stage
    await stage.intake.release()


@asynccontextmanager
async def real_stage(broker: PrivateBroker, outside: Outside, names: Topology) -> AsyncIterator[RealStage]:
    async with TcpProxy(broker.port) as proxy:
        stage = RealStage(proxy, broker.url, outside, names)
        yield stage
        await stage.intake.release()
        await stage.publisher.close()
        for link in stage.links:
            await link.close()


Opener = Callable[[], AbstractAsyncContextManager[Stage]]
PARAMS = ["model", *(pytest.param(lane, marks=pytest.mark.broker) for lane in ("fast lane", "ordinary lane"))]


def opener(request: pytest.FixtureRequest) -> Opener:
    """For a fixture with ``PARAMS``: how to set that stage. Not async: it asks for fixtures that are."""
    if request.param == "model":
        return model_stage
    request.getfixturevalue("monkeypatch").setattr(Lanes, "fast", request.param == "fast lane")
    parts = (request.getfixturevalue(name) for name in ("broker", "outside", "queues"))
    return partial(real_stage, *parts)
