"""Runs one seed: a world in virtual time, the real worker in it (or two of them), its troubles, and the oracle's
verdict.

Nothing here depends on the clock, on memory addresses or on other runs: the same seed always gives the same trace.
"""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from tests.simulation.broker import Broker
from tests.simulation.journal import Books
from tests.simulation.life import DRAIN_GRACE_S, Life
from tests.simulation.oracle import Oracle
from tests.simulation.platform import SimPlatform
from tests.simulation.processes import FreezingLoop, SimLoop, nobodys
from tests.simulation.scenario import MOMENTS, Fault, Scenario, Trouble, scenario_of
from tests.simulation.steps import Snares, Step
from tests.simulation.trace import Trace
from tests.simulation.weather import Weather
from tests.support.virtualtime import START_S

REST_STEP_S = 20.0
REST_STEPS = 150
"""How long a worker may take to come to rest once all is well: 3000 virtual seconds."""


class World:
    """What outlives workers, and those that work now."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        dice = random.Random(f"faults of {scenario.seed}")
        self.scenario = scenario
        self.trace = trace
        self.dice = dice
        self.oracle = Oracle(scenario, trace)
        self.broker = Broker(self.oracle, trace, dice, shared=scenario.shared)
        self.weather = Weather(dice)
        self.snares = Snares()
        self.platform = SimPlatform(scenario, self.oracle, trace, self.weather, self.snares)
        self.books = Books(scenario, self.oracle, trace, self.weather, self.snares)
        self.started = 0
        self.chores: set[asyncio.Task[None]] = set()
        self.lives = [self._live() for _ in range(scenario.workers)]

    def _live(self) -> Life:
        self.oracle.forgotten(self.scenario.events.values())
        self.started += 1
        self.trace.note("start", f"worker {self.started}")
        return Life(self.scenario, self.broker, self.platform, self.books, self.weather, number=self.started)

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
        self.snares.clear()

    # -- troubles -------------------------------------------------------------------------------------------------

    async def _strike(self, fault: Fault) -> None:
        self.trace.note("trouble", fault.trouble, f"for {fault.lasts_s} s" if fault.trouble not in MOMENTS else "")
        life = self._victim()
        channel = life.link.channel_of_now
        match fault.trouble:
            case Trouble.CUT if channel is not None:
                channel.cut(self.dice.choice([0.0, 0.001, 0.5]))
            case Trouble.CONSUMER_GONE if channel is not None and not channel.is_closed:
                channel.cancel_consumer()
            case Trouble.KILL:
                await self._do(self._kill(life))
            case Trouble.STOP:
                await self._do(self._stop(life))
            case Trouble.PAUSED_BY_HAND:
                await life.pipeline.availability.pause("why not")
            case Trouble.TOKEN_REVOKED:
                self.platform.good_token += 1
            case Trouble.FREEZE:
                self._freeze(life, fault.lasts_s)
            case Trouble.FREEZE_AT | Trouble.KILL_AT:
                self._lay_a_snare(fault)
            case Trouble.SPLIT:
                life.split(fault.lasts_s, notices_s=self.dice.choice([0.5, 5.0, 20.0]))
            case Trouble.DEAF:
                self._deafen(life, fault.lasts_s)
            case _:
                self.weather.begin(fault.trouble, fault.lasts_s)

    def _victim(self) -> Life:
        """Of two workers rather the one that has something in hand."""
        if len(self.lives) == 1:
            return self.lives[0]
        there = [life for life in self.lives if life.active] or self.lives
        busy = [life for life in there if life.consuming]
        return self.dice.choice(busy if busy and self.dice.random() < 0.7 else there)

    async def _do(self, work: Coroutine[Any, Any, None]) -> None:
        """One worker is waited for; where there are two, the other one goes on meanwhile."""
        if len(self.lives) == 1:
            await work
        else:
            self._begin(work)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        chore = asyncio.get_running_loop().create_task(work, context=nobodys())
        self.chores.add(chore)
        chore.add_done_callback(self.chores.discard)

    async def _have_a_person_look(self) -> None:
        """Somebody paused the worker, or it paused itself for a storm: somebody lets it go on."""
        for life in self.lives:
            if life.active and await life.pipeline.availability.resume_by_hand():
                self.trace.note("resumed by a person")

    async def _kill(self, life: Life) -> None:
        """Everything in memory is gone, and nothing that the dying tasks still do has an effect."""
        if not life.active:
            return
        self._end_now(life)
        await self._end(life)
        await asyncio.sleep(self.dice.choice([0.0, 1.0] if len(self.lives) == 1 else [0.0, 1.0, 20.0, 60.0]))
        self._replace(life)

    def _end_now(self, life: Life) -> None:
        self.trace.note("killed", life.name)
        life.ending = True
        life.link.cut_off = True
        if life.link.channel_of_now is not None:
            if len(self.lives) == 1 or self.scenario.shared or self.dice.random() < 0.4:
                life.link.channel_of_now.cut(0.0)
            else:
                life.link.channel_of_now.perish(self.dice.choice([20.0, 40.0]))
        life.task.cancel()

    async def _stop(self, life: Life) -> None:
        """SIGTERM, and another one is started."""
        if not life.active:
            return
        life.ending = True
        life.pipeline.stop()
        began = asyncio.get_running_loop().time()
        await self._end(life)
        if (took_s := asyncio.get_running_loop().time() - began) > DRAIN_GRACE_S + 10.0:
            self.trace.violation(f"the drain took {took_s:.1f} s")
        self._replace(life)

    def _replace(self, life: Life) -> None:
        self.lives[self.lives.index(life)] = self._live()

    async def _end(self, life: Life) -> None:
        _, pending = await asyncio.wait([life.task], timeout=200.0)
        if pending:
            self.trace.violation("the worker does not end")
        elif not life.task.cancelled() and (error := life.task.exception()) is not None:
            self.trace.violation(f"the worker died: {error!r}")

    # -- troubles of one of two -----------------------------------------------------------------------------------

    def _freeze(self, life: Life, lasts_s: float) -> None:
        """The broker misses its heartbeats, sooner or later; platform and journal answer into the void."""
        if not life.active:
            return
        self.trace.note("frozen", life.name, f"for {lasts_s} s")
        life.process.freeze()
        self.platform.froze(life.name)
        loop = asyncio.get_running_loop()
        loop.call_later(lasts_s, self._thaw, life, context=nobodys())
        notices_s = self.dice.choice([0.0, 2.0, 20.0])
        if notices_s < lasts_s and life.link.channel_of_now is not None:
            loop.call_later(notices_s, life.link.channel_of_now.cut, 0.0, context=nobodys())

    def _thaw(self, life: Life) -> None:
        self.trace.note("thawed", life.name)
        life.process.thaw()

    def _lay_a_snare(self, fault: Fault) -> None:
        def spring(name: str) -> None:
            life = next((life for life in self.lives if life.name == name), None)
            if life is None or not life.active:
                return
            self.trace.note("caught", name, step)
            if fault.trouble is Trouble.KILL_AT:
                self._begin(self._kill(life))
            else:
                self._freeze(life, fault.lasts_s)

        step = self.dice.choice([*Step, Step.SENDING, Step.SENDING])
        self.snares.lay(step, spring, contested=self.scenario.shared and self.dice.random() < 0.5)

    def _deafen(self, life: Life, lasts_s: float) -> None:
        """Its calls arrive, sooner or later; no answer does. It may lose its messages to the other one, too."""
        self.weather.begin(Trouble.DEAF, lasts_s, worker=life.name)
        if self.dice.random() < 0.7 and life.link.channel_of_now is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self.dice.uniform(0.0, 5.0), life.link.channel_of_now.cut, 0.0, context=nobodys())

    # -- the end --------------------------------------------------------------------------------------------------

    async def rest(self) -> None:
        """Wait until nothing is left to do. Where the platform takes no empty lists, other orders have to be witnesses
        against a bad one: so there is a little traffic, of an order of its own."""
        for _ in range(REST_STEPS):
            if self.trace.violations or any(life.task.done() and not life.ending for life in self.lives):
                break
            if self._at_rest:
                return
            await self._have_a_person_look()
            if not self.scenario.takes_empty and (event := self.oracle.next_witness()) is not None:
                self.broker.publish(event)
            await asyncio.sleep(REST_STEP_S)
        else:
            self.trace.violation("never at rest")

    @property
    def _at_rest(self) -> bool:
        return (
            self.broker.quiet
            and all(life.idle for life in self.lives)
            and self._running
            and self.books.quiet
            and not self.platform.late
            and not self.chores
        )

    @property
    def _running(self) -> bool:
        """Whether all do what they should. Where no empty list is taken, only a message can show a worker that the
        platform is well, and the other one may get them all."""
        running = [life.breaker.running for life in self.lives]
        return all(running) or (not self.scenario.takes_empty and any(running))

    async def finish(self) -> None:
        """Stop the worker, then hold everything against the promises."""
        for life in self.lives:
            if not life.task.done():
                life.pipeline.stop()
        for life in self.lives:
            await self._end(life)
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
    scenario = scenario_of(seed)
    before = random.getstate()
    random.seed(seed)
    try:
        loop_of = SimLoop if scenario.workers == 1 else FreezingLoop
        with trace.listening(), asyncio.Runner(loop_factory=loop_of) as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(lambda _, context: trace.violation(f"unhandled: {context}"))
            runner.run(_run(scenario, trace))
    except RuntimeError as error:  # the clock found a deadlock or a busy loop
        trace.entries.append((0.0, "VIOLATION", (error,)))
        trace.violations.append(repr(error))
    finally:
        random.setstate(before)
    return trace
