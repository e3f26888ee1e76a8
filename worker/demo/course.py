"""The course of the demo: start platform and worker, publish with an outage in the middle, wait, stop, count.

platform up -> worker ready -> publish ........ [503 for 5 s] ........ -> settled -> worker stopped -> counted
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from worker.config import PREFIX
from worker.core.errors import WorkerError
from worker.demo.broker import RETRY_DELAYS_S, Broker
from worker.demo.load import Load, make_load
from worker.demo.oracle import expected_dead, final_states, wrong_orders
from worker.demo.platform import CLIENT, StandIn
from worker.demo.processes import Program, json_lines
from worker.demo.queues import Queues, chunks
from worker.demo.report import Report, Result, make_report
from worker.demo.view import Snapshot, View

OUTAGE_S: Final = 5.0
OUTAGE_AT: Final = 0.4  # of the events
RATE: Final = 625.0
"""Events per second that are published at most: 5,000 take 8 s, so the outage comes in the middle of them."""
LOOK_EVERY_S: Final = 0.25
SETTLE_DEADLINE_S: Final = 45.0
REMOVE_DEADLINE_S: Final = 15.0
LATENCY_S: Final = "0.01:0.03"


@dataclass(slots=True, frozen=True, kw_only=True)
class Kept:
    """What was left running: ``environment`` for further commands, the processes, and how to end it all."""

    environment: Mapping[str, str]
    sim_url: str
    pids: Mapping[str, tuple[int, ...]]
    how_to_stop: tuple[str, ...]


@dataclass(slots=True, frozen=True, kw_only=True)
class Plan:
    """What was asked for, and where things go: ``programs`` ends what is started, ``folder`` has the logs."""

    broker: Broker
    events: int
    keep: bool
    folder: Path
    programs: ExitStack
    console: Console


async def carry_out(plan: Plan) -> tuple[Report, Kept | None]:
    """The whole demo on a broker that is there. Raises WorkerError where a part of it fails.

    The queues of a shared broker are removed on every way out, unless all of it is kept.
    """
    keeping = False
    async with Queues(plan.broker) as queues:
        try:
            report, kept = await _Course(plan, queues).run()
            keeping = kept is not None
            return report, kept
        finally:
            if plan.broker.shared and not keeping:
                plan.programs.close()  # a worker would notice, and complain, that its queues go away
                await _remove(queues, plan.console)


async def _remove(queues: Queues, console: Console) -> None:
    """Removing must not hide why the demo ended."""
    try:
        async with asyncio.timeout(REMOVE_DEADLINE_S):
            await queues.remove()
    except (WorkerError, TimeoutError) as error:
        console.print(f"the demo's queues could not be removed: {error}", markup=False, highlight=False)


class _Course:
    def __init__(self, plan: Plan, queues: Queues) -> None:
        self._plan = plan
        self._queues = queues
        self._view = View(plan.console)
        self._published = 0
        self._started = time.monotonic()

    async def run(self) -> tuple[Report, Kept | None]:
        self._view.tell(f"broker: {self._plan.broker.text}")
        platform = self._program("platform", ["simulate", "--port", "0", "--sim-port", "0", "--latency", LATENCY_S], {})
        addresses = await platform.line("sim_url")
        self._view.tell(f"stand-in platform: {addresses['graphql_url']}")
        settings = self._settings(addresses)
        worker = self._program("worker", ["run"], settings)
        await worker.line("worker.ready")
        self._view.tell(f"worker: process {worker.pid}, its log is {worker.log}")
        async with StandIn(**addresses) as standin:
            result = await self._work(standin, worker)
        report = make_report(result)
        if not self._plan.keep:
            return report, None
        worker = self._program("worker", ["run"], settings)  # the first one was stopped to have it count
        return report, self._kept(settings, addresses["sim_url"], platform, worker)

    async def _work(self, standin: StandIn, worker: Program) -> Result:
        load = make_load(self._plan.events, now_us=time.time_ns() // 1000)
        await standin.set_options(
            rejected_orders={str(order_id): text for order_id, text in load.rejected_orders.items()},
            rejected_values=load.rejected_values,
            busy_orders={str(order_id): times for order_id, times in load.busy_orders.items()},
        )
        with self._view:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(standin, worker, len(load.events)), name="watch")
                await self._publish(load, standin)
                await self._until_settled(load, standin)
                watching.cancel()
        return await self._count(load, standin, worker)

    async def _publish(self, load: Load, standin: StandIn) -> None:
        """Everything, not faster than ``RATE``; the outage begins on the way."""
        began, broken = time.monotonic(), False
        for chunk in chunks(load.events):
            await self._queues.publish(chunk)
            self._published += len(chunk)
            if not broken and self._published >= OUTAGE_AT * len(load.events):
                broken = True
                await standin.fail_for(OUTAGE_S)
            await asyncio.sleep(max(0.0, began + self._published / RATE - time.monotonic()))

    async def _until_settled(self, load: Load, standin: StandIn) -> None:
        """Return when nothing waits and everything is as it must be, twice in a row; or when that takes too long.

        What is not right by then is told by the report, not here.
        """
        until = time.monotonic() + SETTLE_DEADLINE_S + self._plan.events / 1000
        wanted, dead = final_states(load.events), expected_dead(load.events).total()
        quiet = 0
        while quiet < 2 and time.monotonic() < until:
            await asyncio.sleep(LOOK_EVERY_S)
            depths = await self._queues.depths()
            done = (depths.work, depths.retry, depths.dead) == (0, 0, dead)
            quiet = quiet + 1 if done and not wrong_orders(wanted, await standin.orders()) else 0

    async def _watch(self, standin: StandIn, worker: Program, total: int) -> None:
        while True:
            worker.check()
            look, depths = await standin.look(), await self._queues.depths()
            self._view.show(Snapshot(self._published, total, look, depths))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _count(self, load: Load, standin: StandIn, worker: Program) -> Result:
        """Stop the worker, which makes it tell its counters, then look at everything once more."""
        self._view.tell("stopping the worker: it drains, and tells what became of every event")
        await asyncio.to_thread(worker.stop)
        stopped = await worker.line("worker.stopped", deadline_s=0)
        look, orders = await standin.look(), await standin.orders()
        return Result(
            load=load,
            published=self._published,
            counts=stopped["counts"],
            depths=await self._queues.depths(),
            letters=await self._queues.dead_letters(),
            orders=orders,
            reply=await standin.documented_call(),
            calls=look.calls,
            failed_calls=look.failed,
            outage_s=sum(line["after_s"] for line in json_lines(worker.log) if line["event"] == "platform.recovered"),
            took_s=round(time.monotonic() - self._started, 1),
        )

    def _program(self, name: str, arguments: list[str], settings: Mapping[str, str]) -> Program:
        program = Program(name, arguments, folder=self._plan.folder, settings=settings)
        self._plan.programs.callback(program.stop)
        return program

    def _settings(self, addresses: Mapping[str, str]) -> dict[str, str]:
        """The worker's environment."""
        broker = self._plan.broker
        values = {
            "amqp_url": ",".join(broker.urls),
            "exchange": broker.names.exchange,
            "queue": broker.names.queue,
            "dead_letter_queue": broker.names.dead_letter_queue,
            "retry_delays_s": ",".join(f"{delay:g}" for delay in RETRY_DELAYS_S),
            "oauth_url": addresses["oauth_url"],
            "graphql_url": addresses["graphql_url"],
            "client_id": CLIENT.client_id,
            "client_secret": CLIENT.client_secret,
            "admin_port": "0",  # somebody else's worker may have it
        }
        return {f"{PREFIX}{name.upper()}": value for name, value in values.items()}

    def _kept(self, settings: Mapping[str, str], sim_url: str, platform: Program, worker: Program) -> Kept:
        broker = self._plan.broker
        if broker.shared:  # the person has that one already, password included
            settings = {name: value for name, value in settings.items() if name != f"{PREFIX}AMQP_URL"}
        pids = {"worker": (worker.pid,), "platform": (platform.pid,), "broker": broker.pids}
        every = (*pids["worker"], *pids["platform"], *pids["broker"])
        stop = [f"kill {' '.join(map(str, every))}", f"rm -r {self._plan.folder}", broker.how_to_remove]
        return Kept(environment=settings, sim_url=sim_url, pids=pids, how_to_stop=tuple(line for line in stop if line))
