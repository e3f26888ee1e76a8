"""The dashboard on a real Prometheus that scrapes a real worker: each panel shows what happened, and alerts fire."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.test_metrics import BUDGET, BUSY, REJECTED, TOKEN, Admin, Kept, publish_everything
from tests.support.dashboard import Query, queries
from tests.support.prometheus import JOB, NAMESPACE, PrivatePrometheus, Series, numbers
from tests.support.promtool import groups
from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker
from worker.simulator.options import Options

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]  # where Prometheus is missing it is installed

DEADLINE_S = 15.0
POLL_S = 0.2
DEAD = 3
BUSY_CALLS = 4
"""Fewer than MAX_ATTEMPTS, so that it is applied in the end; enough for a retry, in whatever company it came."""
QUIET = {
    "Nothing applied while events wait (A)",
    "Storm guard (A)",
    "Share of dead letters (A)",  # a resume begins it anew
    "Workers (E)",  # draining
    "Events that wait (A)",
    "Oldest event in a worker (A)",
    "Why no call starts (A)",
    "Handed back (A)",
    "Other values shown (A)",
    "Calls in flight (A)",
    "Calls under way, and allowed (A)",
    "Credentials refused (A)",
}
"""Queries whose figure may be 0 when the run is over."""
Shown = Mapping[str, list[Series]]


@dataclass(slots=True)
class Night:
    """A run with good events, bad ones, a busy order, an outage and a pause. ``began`` is seconds since 1970; ``held``
    and ``paused`` are what the panels showed during the outage and the pause."""

    prometheus: PrivatePrometheus
    began: float
    held: Shown = field(default_factory=dict)
    paused: Shown = field(default_factory=dict)

    async def all_shown(self) -> Shown:
        """All panels at this moment."""
        return {str(query): await self.shown(query) for query in queries()}

    async def shown(self, query: Query) -> list[Series]:
        """What the panel gets from Prometheus, with the variables' values of this run."""
        text = query.filled(self._values())
        return await (self.prometheus.since(text, self.began) if query.ranged else self.prometheus.now(text))

    def _values(self) -> Mapping[str, str]:
        range_s = round(time.time() - self.began) + 1
        return {"namespace": NAMESPACE, "job": JOB, "__rate_interval": "4s", "__range": f"{range_s}s"}


async def outage(world: World, night: Night) -> None:
    """The platform is away until Prometheus has seen it, and comes back."""
    await world.fault(kind="status", status=503, standing=True)
    await world.publish([stamped(1, 4)])
    await night.prometheus.until(
        'order_worker_paused{cause="unavailable"} == 1 and on (instance) order_worker_oldest_unsettled_age_seconds > 0'
    )
    night.held = await night.all_shown()
    await world.simulator.clear_faults()
    await world.until_applied({1: 4})


async def pause(world: World, night: Night, admin: Admin) -> None:
    """By hand, until Prometheus has seen that events wait at the broker."""
    token = f"Bearer {TOKEN}"
    assert (await admin.ask("/pause", method="POST", Authorization=token))[0] == 200
    await world.publish([stamped(2, 4), stamped(3, 4)])
    await night.prometheus.until('order_worker_queue_messages{queue="work", state="ready"} >= 2')
    night.paused = await night.all_shown()
    assert (await admin.ask("/resume", method="POST", Authorization=token))[0] == 200
    await world.until_applied({2: 4, 3: 4})


@pytest.fixture
async def night(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[Night]:
    """Prometheus has seen all of it, from before the first event."""
    admin, began = Admin(), time.time()
    options = Options(rejected_orders={REJECTED: "no such order"}, busy_orders={BUSY: BUSY_CALLS})
    target = f"127.0.0.1:{admin.port}"
    async with PrivatePrometheus(tmp_path, [target]) as prometheus, Kept(broker, tmp_path, options) as world:
        worker = await world.start(**admin.settings, RATE_PER_HOUR=str(BUDGET))
        night = Night(prometheus, began)
        await prometheus.until("order_worker_deliveries_total == 0")
        published = await publish_everything(world)
        await prometheus.until("sum(order_worker_retries_total) > 0")
        await outage(world, night)
        await pause(world, night, admin)
        await prometheus.until(f"sum(order_worker_events_settled_total) >= {published + 3}")
        await prometheus.until(f"sum(order_worker_dead_letters_total) == {DEAD}")
        await prometheus.until(f'order_worker_queue_messages{{queue="dead"}} == {DEAD}')
        await prometheus.until('ALERTS{alertname="OrderWorkerDeadLetters", alertstate="firing"}')
        yield night
        assert await worker.terminate() == 0


async def test_every_panel_shows_what_happened(night: Night) -> None:
    """Each query has figures, and those of what did happen are not 0; some come a scrape later than the others."""
    waiting, end = queries(), time.monotonic() + DEADLINE_S
    told: Shown = {}
    while waiting and time.monotonic() < end:
        told = await night.all_shown()
        waiting = [query for query in queries() if not tells(query, told[str(query)])]
        await asyncio.sleep(POLL_S if waiting else 0)

    assert {str(query): told[str(query)] for query in waiting} == {}
    assert seen(night.held["Why no call starts (A)"], "cause") == {("unavailable",)}
    assert figure(night.held["Oldest event in a worker (A)"]) > 0
    assert seen(night.paused["Why no call starts (A)"], "cause") == {("manual",)}
    assert figure(night.paused["Share of dead letters (A)"]) > 0
    assert figure(night.paused["Events that wait (A)"]) >= 2  # a retry may have come back
    assert 0 < figure(night.paused["Nothing applied while events wait (A)"]) < time.time() - night.began
    assert ("OrderWorkerDeadLetters", "firing") in seen(told["Alerts (A)"], "alertname", "alertstate")
    assert seen(told["Dead letters by reason (A)"], "reason") == {("invalid-event",), ("rejected",)}
    assert seen(told["Retries by reason (A)"], "reason") == {("busy",)}
    calls = seen(told["Calls by purpose and result (A)"], "kind", "result")
    assert calls >= {("orders", "answered"), ("orders", "unavailable")}
    assert figure(told["Dead letters that lie there (A)"]) == DEAD
    assert 0 < figure(told["Calls answered (A)"]) < 1


async def test_prometheus_loads_the_alerts_and_judges_them(tmp_path: Path) -> None:
    """All of them, without an error; where no worker is seen, the first one is on its way."""
    wanted = [rule["alert"] for group in groups() for rule in group["rules"]]
    async with PrivatePrometheus(tmp_path, []) as prometheus:
        await prometheus.until('ALERTS{alertname="OrderWorkerNotConsuming", alertstate="pending"}')
        told = (await prometheus.ask("rules"))["groups"]

    rules = [rule for group in told for rule in group["rules"]]
    assert [rule["name"] for rule in rules] == wanted
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}


def tells(query: Query, series: list[Series]) -> bool:
    """Whether there is a figure, and one that is not 0 where one has to be."""
    figures = [number for each in series for number in numbers(each)]
    return bool(figures) if str(query) in QUIET else any(figures)


def seen(series: list[Series], *labels: str) -> set[tuple[str, ...]]:
    """The values that these labels have."""
    return {tuple(each["metric"][label] for label in labels) for each in series}


def figure(series: list[Series]) -> float:
    """The one number of the one series."""
    [one] = series
    [number] = numbers(one)
    return number
