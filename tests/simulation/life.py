"""One worker process: everything of it is the product's, but for the libraries' side of broker, platform and
journal."""

import asyncio
from typing import cast

from tests.simulation.broker import DELAYS_S, Broker, wall_us
from tests.simulation.journal import Books, SimJournal
from tests.simulation.oracle import MAX_ATTEMPTS
from tests.simulation.platform import SimClient, SimPlatform
from tests.simulation.processes import Process, nobodys
from tests.simulation.scenario import Scenario, Trouble
from tests.simulation.weather import Weather
from tests.simulation.wire import SimLink, SimPublisher
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.settler import BrokerSettler
from worker.caller import Caller
from worker.core.breaker import Breaker
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.outcome import Outcomes
from worker.core.storm import StormGuard
from worker.core.verdict import Rules
from worker.pipeline import Limits, Pipeline

DRAIN_GRACE_S = 25.0


class Life:
    """A worker from its start to its end. ``ending``: it was told to end, or
    killed."""

    def __init__(
        self, scenario: Scenario, broker: Broker, platform: SimPlatform, books: Books, weather: Weather, *, number: int
    ) -> None:
        self.name = f"w{number}"
        self.ending = False
        self.process = Process()
        self.link = SimLink(broker, self.name, fast_lane=scenario.fast_lane)
        consumer = Consumer(
            cast("Link", self.link), queue="work", prefetch=scenario.prefetch, alone_from=2, wall_us=wall_us
        )
        self.publisher = SimPublisher(broker, self.link)
        self.publisher.fails = lambda: weather.has(Trouble.COPIES_FAIL, 0.7)
        self.publisher.forgets = lambda: weather.has(Trouble.CONFIRMS_FAIL, 0.7)
        client = SimClient(platform, weather, self.name)
        self.coalescer = Coalescer(
            max_batch=scenario.max_batch,
            max_bytes=1 << 20,
            linger_s=scenario.linger_s,
            milestones=scenario.milestones,
            name=self.name,
        )
        self.breaker = Breaker(hold_limit_s=scenario.hold_limit_s)
        settler = BrokerSettler(
            consumer,
            cast("Publisher", self.publisher),
            dead_queue="dead",
            retry_exchanges=[f"retry.{tier}" for tier in range(len(DELAYS_S))],
            worker="simulation",
            wall_us=wall_us,
        )
        self.pipeline = Pipeline(
            schema=EventSchema({}, ()),
            coalescer=self.coalescer,
            outcomes=Outcomes(self.coalescer, max_attempts=MAX_ATTEMPTS, delays_s=DELAYS_S),
            breaker=self.breaker,
            storm=StormGuard(ratio=scenario.storm_ratio, window=200),
            caller=Caller(client, client, Rules()),
            journal=SimJournal(books, self.name),
            settler=settler,
            intake=consumer,
            limits=_limits(scenario),
            name=self.name,
            clock=asyncio.get_running_loop().time,
            wall_us=wall_us,
        )
        self.task = asyncio.create_task(self.pipeline.run(), name=f"pipeline {self.name}", context=self.process.context)

    def split(self, lasts_s: float, *, notices_s: float) -> None:
        """Cut off from the broker only: it notices late, and meanwhile carries on with what it has."""
        self.link.away = True
        if self.link.channel_of_now is not None:
            self.link.channel_of_now.cut(min(lasts_s, notices_s))
        asyncio.get_running_loop().call_later(lasts_s, setattr, self.link, "away", False, context=nobodys())

    @property
    def active(self) -> bool:
        """Whether it runs, and is to go on."""
        return not self.ending and not self.process.frozen

    @property
    def idle(self) -> bool:
        """Nothing buffered, nothing unsettled."""
        return self.coalescer.idle and not len(self.pipeline._unsettled) and not self.process.frozen

    @property
    def consuming(self) -> bool:
        """Whether it has messages in hand, as far as it knows."""
        return self.pipeline.activity.unsettled > 0


def _limits(scenario: Scenario) -> Limits:
    return Limits(
        max_in_flight=scenario.max_in_flight,
        max_unsettled_s=scenario.max_unsettled_s,
        drain_grace_s=DRAIN_GRACE_S,
        prefetch=scenario.prefetch,
        calls_per_hour=scenario.calls_per_hour,
    )
