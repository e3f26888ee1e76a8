"""Runs one seed: a world in virtual time, the real worker in it, its troubles, and the oracle's verdict.

Nothing here depends on the clock, on memory addresses or on other runs: the same seed always gives the same trace.
Left out: two workers at once.
"""

import asyncio
import random
from typing import Any, cast

from tests.simulation.broker import DELAYS_S, Broker, wall_us
from tests.simulation.oracle import MAX_ATTEMPTS, Oracle
from tests.simulation.platform import SimClient, SimJournal, SimPlatform, Weather
from tests.simulation.scenario import MOMENTS, Fault, Scenario, Trouble, scenario_of
from tests.simulation.trace import Trace
from tests.simulation.wire import SimLink, SimPublisher
from tests.support.virtualtime import START_S, VirtualTimeLoop
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
REST_STEP_S = 20.0
REST_STEPS = 150
"""How long a worker may take to come to rest once all is well: 3000 virtual seconds."""


class SimTask(asyncio.Task[Any]):
    """A task with a number for its hash, so that sets of tasks have the same order in every run."""

    def __init__(self, coro: Any, *, number: int, **kwargs: Any) -> None:
        self._number = number
        super().__init__(coro, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(VirtualTimeLoop):
    """Virtual time, and tasks that are numbered."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks_made = 0
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> SimTask:
        self._tasks_made += 1
        return SimTask(coro, number=self._tasks_made, loop=loop, **kwargs)


class Life:
    """One worker process, from its start to its end."""

    def __init__(self, world: "World", number: int) -> None:
        scenario = world.scenario
        name = f"w{number}"
        self.link = SimLink(world.broker, name)
        consumer = Consumer(
            cast("Link", self.link), queue="work", prefetch=scenario.prefetch, alone_from=2, wall_us=wall_us
        )
        self.publisher = SimPublisher(world.broker, self.link)
        self.publisher.fails = lambda: world.weather.has(Trouble.COPIES_FAIL, 0.7)
        self.publisher.forgets = lambda: world.weather.has(Trouble.CONFIRMS_FAIL, 0.7)
        client = SimClient(world.platform, world.weather, name)
        self.coalescer = Coalescer(
            max_batch=scenario.max_batch,
            max_bytes=1 << 20,
            linger_s=scenario.linger_s,
            milestones=scenario.milestones,
            name=name,
        )
        self.breaker = Breaker(hold_limit_s=scenario.hold_limit_s)
        self.pipeline = Pipeline(
            schema=EventSchema({}, ()),
            coalescer=self.coalescer,
            outcomes=Outcomes(self.coalescer, max_attempts=MAX_ATTEMPTS, delays_s=DELAYS_S),
            breaker=self.breaker,
            storm=StormGuard(ratio=scenario.storm_ratio, window=200),
            caller=Caller(client, client, Rules()),
            journal=world.journal,
            settler=BrokerSettler(
                consumer,
                cast("Publisher", self.publisher),
                dead_queue="dead",
                retry_exchanges=[f"retry.{tier}" for tier in range(len(DELAYS_S))],
                worker="simulation",
                wall_us=wall_us,
            ),
            intake=consumer,
            limits=Limits(
                max_in_flight=scenario.max_in_flight,
                max_unsettled_s=scenario.max_unsettled_s,
                drain_grace_s=DRAIN_GRACE_S,
                prefetch=scenario.prefetch,
                calls_per_hour=scenario.calls_per_hour,
            ),
            clock=asyncio.get_running_loop().time,
            wall_us=wall_us,
        )
        self.task = asyncio.create_task(self.pipeline.run(), name=f"pipeline {name}")

    @property
    def idle(self) -> bool:
        """Nothing buffered, nothing unsettled, nothing the matter."""
        return self.coalescer.idle and not len(self.pipeline._unsettled) and self.breaker.running


class World:
    """What outlives workers, and the one that works now."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        dice = random.Random(f"faults of {scenario.seed}")
        self.scenario = scenario
        self.trace = trace
        self.dice = dice
        self.oracle = Oracle(scenario, trace)
        self.broker = Broker(self.oracle, trace, dice)
        self.weather = Weather(dice)
        self.platform = SimPlatform(scenario, self.oracle, trace, self.weather)
        self.journal = SimJournal(self.oracle, trace, scenario.journal_takes_s)
        self.lives = 0
        self.life = self._live()

    def _live(self) -> Life:
        self.oracle.forgotten(self.scenario.events.values())
        self.lives += 1
        self.trace.note("start", f"worker {self.lives}")
        return Life(self, self.lives)

    async def play(self) -> None:
        """Events and faults, each at its time; then all is well."""
        steps: list[tuple[float, object]] = [*self.scenario.publications]
        steps += [(fault.at_s, fault) for fault in self.scenario.faults]
        for at_s, step in sorted(steps, key=lambda pair: pair[0]):
            await asyncio.sleep(max(0.0, START_S + at_s - asyncio.get_running_loop().time()))
            if self.dice.random() < 0.2:
                await self._have_a_person_look()
            if isinstance(step, Fault):
                await self._strike(step)
            else:
                self.broker.publish(step)  # type: ignore[arg-type]
        self.trace.note("healed")
        self.weather.clear()

    async def _strike(self, fault: Fault) -> None:
        self.trace.note("trouble", fault.trouble, f"for {fault.lasts_s} s" if fault.trouble not in MOMENTS else "")
        channel = self.life.link.channel_of_now
        match fault.trouble:
            case Trouble.CUT if channel is not None:
                channel.cut(self.dice.choice([0.0, 0.001, 0.5]))
            case Trouble.CONSUMER_GONE if channel is not None and not channel.is_closed:
                channel.cancel_consumer()
            case Trouble.KILL:
                await self._kill()
            case Trouble.STOP:
                await self._stop()
            case Trouble.PAUSED_BY_HAND:
                await self.life.pipeline.availability.pause("why not")
            case Trouble.TOKEN_REVOKED:
                self.platform.good_token += 1
            case _:
                self.weather.begin(fault.trouble, fault.lasts_s)

    async def _have_a_person_look(self) -> None:
        """Somebody paused the worker, or it paused itself for a storm: somebody lets it go on."""
        if await self.life.pipeline.availability.resume_by_hand():
            self.trace.note("resumed by a person")

    async def _kill(self) -> None:
        """Everything in memory is gone, and nothing that the dying tasks still do has an effect."""
        life = self.life
        life.link.cut_off = True
        if life.link.channel_of_now is not None:
            life.link.channel_of_now.cut(0.0)
        life.task.cancel()
        await self._end(life)
        await asyncio.sleep(self.dice.choice([0.0, 1.0]))
        self.life = self._live()

    async def _stop(self) -> None:
        """SIGTERM, and another one is started."""
        self.life.pipeline.stop()
        began = asyncio.get_running_loop().time()
        await self._end(self.life)
        if (took_s := asyncio.get_running_loop().time() - began) > DRAIN_GRACE_S + 10.0:
            self.trace.violation(f"the drain took {took_s:.1f} s")
        self.life = self._live()

    async def _end(self, life: Life) -> None:
        _, pending = await asyncio.wait([life.task], timeout=200.0)
        if pending:
            self.trace.violation("the worker does not end")
        elif not life.task.cancelled() and (error := life.task.exception()) is not None:
            self.trace.violation(f"the worker died: {error!r}")

    async def rest(self) -> None:
        """Wait until nothing is left to do. Where the platform takes no empty lists, other orders have to be witnesses
        against a bad one: so there is a little traffic, of an order of its own."""
        for _ in range(REST_STEPS):
            if self.life.task.done() or self.trace.violations:
                break
            if self.broker.quiet and self.life.idle and self.journal.quiet and not self.platform.late:
                return
            await self._have_a_person_look()
            if not self.scenario.takes_empty and (event := self.oracle.next_witness()) is not None:
                self.broker.publish(event)
            await asyncio.sleep(REST_STEP_S)
        else:
            self.trace.violation("never at rest")

    async def finish(self) -> None:
        """Stop the worker, then hold everything against the promises."""
        if not self.life.task.done():
            self.life.pipeline.stop()
        await self._end(self.life)
        if not self.trace.violations:
            self.oracle.judge()
            await self._look_for_leaks()

    async def _look_for_leaks(self) -> None:
        await asyncio.sleep(60.0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            self.trace.violation(f"tasks left: {sorted(task.get_name() for task in left)}")


async def _run(scenario: Scenario, trace: Trace) -> None:
    world = World(scenario, trace)
    await world.play()
    await world.rest()
    await world.finish()


def simulate(seed: int) -> Trace:
    """Run a seed. The trace tells what happened, and which promises were broken."""
    trace = Trace()
    before = random.getstate()
    random.seed(seed)
    try:
        with trace.listening(), asyncio.Runner(loop_factory=SimLoop) as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(lambda _, context: trace.violation(f"unhandled: {context}"))
            runner.run(_run(scenario_of(seed), trace))
    except RuntimeError as error:  # the clock found a deadlock or a busy loop
        trace.entries.append((0.0, "VIOLATION", (error,)))
        trace.violations.append(repr(error))
    finally:
        random.setstate(before)
    return trace
