"""The figures of a real worker: every number under /metrics is what was published, and says what became of it."""

import asyncio
import json
import platform
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.managed import ManagedBroker
from tests.support.proxy import TcpProxy
from tests.support.workerprocess import WorkerProcess
from tests.support.world import World, stamped
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker
from worker.simulator.options import Options
from worker.telemetry import METRICS

pytestmark = pytest.mark.broker

TOKEN = "t0ken-of-the-admin"
SECRET = "cl1ent-secret-planted"
DEADLINE_S = 30.0
POLL_S = 0.05
BUDGET = 36_000
REJECTED, BUSY = 46_140_901, 46_140_902
QUEUES = ("work", "retry", "dead")
LATER = ("60", "90")
"""Retry tiers that outlast the test."""


class Figures:
    """One scrape: the value of each sample by name (without prefix) and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        families = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        self.names = {family.name for family in families}
        self.samples = {
            (each.name.removeprefix("order_worker_"), tuple(each.labels.values())): float(each.value)
            for family in families
            for each in family.samples
        }

    def __call__(self, name: str, *labels: str) -> float:
        return self.samples[name, labels]

    def total(self, name: str, first: str | None = None) -> float:
        """The sum over all labels, or those that begin with this one."""
        return sum(
            value for (each, labels), value in self.samples.items() if each == name and first in (None, *labels[:1])
        )


class Admin:
    """The admin interface of one worker."""

    def __init__(self) -> None:
        self.port = free_port()
        self.settings = {"ADMIN_PORT": str(self.port), "ADMIN_TOKEN": TOKEN}

    async def ask(self, path: str, *, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and text."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers) as answer,
        ):
            return answer.status, await answer.text()

    async def figures(self) -> Figures:
        """What Prometheus gets, without a token."""
        status, text = await self.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert status == 200
        return Figures(text)

    async def until(self, condition: Callable[[Figures], object]) -> Figures:
        """Scrape until the figures are as wanted."""
        end = time.monotonic() + DEADLINE_S
        while not condition(figures := await self.figures()):
            assert time.monotonic() < end, f"the figures did not come to that:\n{figures.text}"
            await asyncio.sleep(POLL_S)
        return figures

    async def state(self) -> Mapping[str, Any]:
        """What a person with the token gets."""
        status, text = await self.ask("/state", Authorization=f"Bearer {TOKEN}")
        assert status == 200
        told: Mapping[str, Any] = json.loads(text)
        return told


class Kept(World):
    """Dead letters stay in their queue, where their number is looked up."""

    async def _watch_dead_letters(self, queue: str) -> None:
        del queue


@pytest.fixture(scope="module")
def managed() -> Iterator[ManagedBroker]:
    """One node with the management API for the file."""
    with ManagedBroker() as node:
        yield node


@pytest.fixture
async def world(managed: ManagedBroker, tmp_path: Path) -> AsyncIterator[World]:
    """A platform that rejects one order and is busy with another one: in company, and then alone."""
    options = Options(client_secret=SECRET, rejected_orders={REJECTED: "no such order"}, busy_orders={BUSY: 2})
    async with Kept(managed, tmp_path, options) as made:
        made.settings |= {
            "MANAGEMENT_URL": managed.management_url,
            "RATE_PER_HOUR": str(BUDGET),
            "RETRY_DELAYS_S": ",".join(LATER),
        }
        yield made
        channel = await made.outside.channel()
        for delay in LATER:
            await channel.queue_delete(f"{made.settings['EXCHANGE']}.retry.{delay}")


def depth(figures: Figures, queue: str, state: str = "ready") -> float | None:
    """Messages of a queue, None while nobody knows."""
    return figures.samples.get(("queue_messages", (queue, state)))


async def publish_everything(world: World) -> int:
    """Three events for each of 50 orders, one that is rejected, one that is retried, two that are none; how many."""
    for status in (2, 3, 4):
        await world.publish(stamped(order_id, status) for order_id in range(46_140_001, 46_140_051))
    await world.publish([stamped(REJECTED, 4), stamped(BUSY, 4)])
    await world.publish_raw(b"{", "1")
    await world.publish_raw(b'{"id": 46140903}', "46140903")
    return 154


async def test_every_figure_is_what_was_published(world: World) -> None:
    """Compared with the producer's, the platform's and the broker's own count; and nothing is missing from the
    table, or beside it."""
    admin, began = Admin(), time.time()
    worker = await world.start(**admin.settings)
    published = await publish_everything(world)
    figures = await admin.until(
        lambda seen: (
            seen.total("events_settled_total") == published
            and [depth(seen, queue) for queue in QUEUES] == [0, 1, 3]
            and [depth(seen, queue, "unacked") for queue in QUEUES] == [0, 0, 0]
        )
    )
    sent = world.calls

    assert figures("deliveries_total") == published
    assert figures.total("events_settled_total", "acked") == 150
    assert figures("events_settled_total", "acked", "applied") >= 50
    assert figures.total("events_settled_total", "dead") == figures.total("dead_letters_total") == 3
    assert figures("dead_letters_total", "invalid-event") == 2
    assert figures("dead_letters_total", "rejected") == 1
    assert figures("retries_total", "busy") == figures.total("retries_total") == 1
    assert figures.total("calls_total") == figures("call_duration_seconds_count") == world.all_calls
    assert figures.total("calls_total", "orders") == len(sent) == figures.total("batches_total")
    assert figures.total("calls_total", "control") == world.all_calls - len(sent)
    assert figures("entries_sent_total") == sum(len(call.order_ids) for call in sent) == figures("batch_entries_sum")
    assert figures("batch_entries_count") == len(sent)
    for since in ("occurred", "first_seen"):
        assert figures("event_age_seconds_count", since) == figures("events_settled_total", "acked", "applied")
    assert 0 < figures("event_age_seconds_sum", "first_seen") < 150 * (time.time() - began)
    assert figures("call_budget") == BUDGET
    assert figures("call_budget_left") == BUDGET - world.all_calls
    assert figures("storm_guard_dead_ratio") == pytest.approx(3 / published)
    assert began - 1 < figures("start_time_seconds") < figures("last_applied_timestamp_seconds") < time.time() + 1
    assert 0 <= figures("token_age_seconds") < time.time() - began
    assert figures("build_info", platform.python_version(), version("order-update-worker")) == 1
    for name in ("ready", "consuming", "journal_up"):
        assert figures(name) == 1
    for name in ("unsettled_deliveries", "waiting_entries", "calls_in_flight", "storm_guard_tripped", "draining"):
        assert figures(name) == 0
    assert figures.total("broker_connected") == 2
    assert figures("breaker_state", "running") == 1
    assert figures.total("paused") == 0
    assert figures.names == {name.removesuffix("_total").removesuffix("_info") for name in METRICS}
    assert await worker.terminate() == 0


async def test_state_says_what_a_person_wants_to_know_and_nothing_secret(world: World) -> None:
    """Behind the token; and neither it nor the metrics hold a secret, a password, or the id of an order."""
    admin = Admin()
    worker = await world.start(**admin.settings)
    published = await publish_everything(world)
    await admin.until(
        # The broker counts at intervals, so the depths are older than the settlements.
        lambda seen: (
            seen.total("events_settled_total") == published
            and (depth(seen, "work"), depth(seen, "work", "unacked")) == (0, 0)
        )
    )
    state, (_, metrics), (_, health) = await admin.state(), await admin.ask("/metrics"), await admin.ask("/healthz")
    refused = [await admin.ask("/state"), await admin.ask("/state", Authorization=f"Bearer {TOKEN}x")]

    assert state["queues"]["work"] == {"ready": 0, "unacked": 0}
    assert state["queues"].keys() == {"work", "retry", "dead"}
    assert (state["unsettled"], state["entries"], state["in_flight"], state["oldest_s"]) == (0, 0, 0, 0.0)
    assert (state["mode"], state["journal_up"], state["storm_tripped"]) == ("running", True, False)
    assert (state["budget"], state["budget_left"]) == (BUDGET, BUDGET - world.all_calls)
    assert state["last_applied_at"].endswith("Z")
    assert state["counts"]["delivered"] == published
    assert [status for status, _ in refused] == [401, 401]
    assert json.loads(health)["connections"] == {"consume": True, "publish": True}
    assert 0 <= json.loads(health)["loop_lag_s"] < 5
    told = json.dumps(dict(state)) + metrics + health + "".join(text for _, text in refused)
    assert [word for word in (TOKEN, SECRET, "guest", "46140", "Bearer ey") if word in told] == []
    assert await worker.terminate() == 0


async def test_a_pause_is_seen_with_its_cause_and_the_queue_that_grows(world: World) -> None:
    """By hand: not consuming, not ready, and what comes waits at the broker."""
    admin = Admin()
    worker = await world.start(**admin.settings)
    status, _ = await admin.ask("/pause", method="POST", Authorization=f"Bearer {TOKEN}")
    await world.publish(stamped(order_id, 4) for order_id in range(1, 8))
    paused = await admin.until(lambda seen: depth(seen, "work") == 7)
    await admin.ask("/resume", method="POST", Authorization=f"Bearer {TOKEN}")
    resumed = await admin.until(lambda seen: seen.total("events_settled_total", "acked") == 7)

    assert status == 200
    assert (paused("consuming"), paused("ready"), paused("breaker_state", "paused")) == (0, 0, 1)
    assert (paused("paused", "manual"), paused.total("paused")) == (1, 1)
    assert (resumed("consuming"), resumed("ready"), resumed.total("paused")) == (1, 1, 0)
    assert await worker.terminate() == 0


async def test_outages_are_figures_not_failures(broker: PrivateBroker, tmp_path: Path) -> None:
    """While platform, broker or both are away every scrape is answered within its time: what is away is 0 or absent,
    with its cause."""
    admin = Admin()
    async with World(broker, tmp_path) as world, TcpProxy(broker.port) as proxy:
        worker = await world.start(**admin.settings, AMQP_URL=proxy.url())
        whole = await admin.until(lambda seen: depth(seen, "work") == 0)
        await world.fault(kind="status", status=503, standing=True)
        await world.publish([stamped(1, 4)])
        held = await admin.until(lambda seen: seen("paused", "unavailable"))
        proxy.blackhole()
        began = time.monotonic()
        scrapes = [await admin.figures() for _ in range(3)]
        took_s = time.monotonic() - began
        await proxy.cut()
        await proxy.refuse()
        cut_off = await admin.until(lambda seen: not seen.total("broker_connected") + seen("consuming"))
        stale = await admin.until(lambda seen: depth(seen, "work") is None)

        assert (held("breaker_state", "holding"), held("unsettled_deliveries")) == (1, 1)
        assert held("calls_total", "orders", "unavailable") >= 1
        assert held("oldest_unsettled_age_seconds") > 0
        assert took_s < 3 * 1.0 + 2.0
        assert all(each.names >= whole.names - {"order_worker_queue_messages"} for each in (*scrapes, cut_off))
        assert (cut_off("consuming"), cut_off("ready")) == (0, 0)
        assert stale("journal_up") == 1
        await proxy.heal()
        await world.simulator.clear_faults()
        await world.until_applied({1: 4})
        again = await admin.until(lambda seen: depth(seen, "work") == 0)
        assert again("broker_connected", "consume") == 1
        assert await worker.terminate() == 0


async def test_a_worker_that_cannot_begin_says_so(tmp_path: Path) -> None:
    """Neither journal nor broker nor platform are there: all figures are, from the first minute."""
    admin = Admin()
    nowhere = {
        "AMQP_URL": "amqp://guest:guest@127.0.0.1:9/",
        "JOURNAL_URL": "postgresql://somebody:pl4nted@127.0.0.1:9/journal",
        "OAUTH_URL": "http://127.0.0.1:9/token",
        "GRAPHQL_URL": "http://127.0.0.1:9/",
        "CLIENT_ID": "c",
        "CLIENT_SECRET": SECRET,
    }
    worker = await WorkerProcess.start(nowhere | admin.settings, cwd=tmp_path)
    try:
        await worker.until_heard("journal.unavailable")
        figures, state = await admin.figures(), await admin.state()
    finally:
        worker.send(signal.SIGTERM)
        code = await worker.ended()

    for name in ("journal_up", "ready", "consuming", "deliveries_total", "unsettled_deliveries"):
        assert figures(name) == 0
    assert figures.total("broker_connected") == 0
    missing = {"token_age_seconds", "call_budget", "call_budget_left", "last_applied_timestamp_seconds"}
    left_out = {f"order_worker_{name}" for name in (*missing, "queue_messages")}
    assert figures.names == {name.removesuffix("_total").removesuffix("_info") for name in METRICS} - left_out
    assert (state["journal_up"], state["queues"], state["last_applied_at"]) == (False, {}, None)
    assert [word for word in (SECRET, "pl4nted") if word in figures.text + json.dumps(dict(state))] == []
    assert code == 0
