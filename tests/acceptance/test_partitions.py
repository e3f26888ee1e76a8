"""Partitions as people use them: the worker, `topology --migrate`, `check`, pauses and replays."""

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.support import generation
from tests.support.broker import DEADLINE_S, Outside, unique_topology
from tests.support.deadworld import DeadWorld
from tests.support.doctor import check, platform
from tests.support.tool import Tool, finished
from tests.support.world import World, stamped
from worker.adapters.amqp.topology import Topology
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker
from worker.core.partition import queue_names

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

ORDERS = range(1, 101)
BAD = 66


def partitioned(partitions: int) -> dict[str, str]:
    return {"PARTITIONS": str(partitions), "HASH_EXCHANGE": generation.hash_exchange()}


def tool_of(world: World) -> Tool:
    tool = Tool(world.folder, world.broker.url, unique_topology())
    tool.use(world.settings)
    return tool


async def test_a_worker_with_partitions_does_the_whole_job(broker: PrivateBroker, tmp_path: Path) -> None:
    """Applied, retried and dead-lettered, with one worker on all of them; a pause concerns them all."""
    port = free_port()
    async with World(broker, tmp_path, partitions=4) as world:
        world.set_options(rejected_values={"status": {str(BAD): "no such status"}})
        worker = await world.start(ADMIN_PORT=str(port))
        await world.publish([stamped(order, 4) for order in ORDERS])
        await world.publish([stamped(1000, 1, status=BAD)])
        await world.until_applied(dict.fromkeys(ORDERS, 4))
        [letter] = await world.until_dead(1)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as admin:
            async with admin.get("/state") as answer:
                state = await answer.json()
            async with admin.post("/pause") as answer:
                assert answer.status == 200
            await world.publish([stamped(order, 8) for order in ORDERS])
            async with admin.get("/readyz") as answer:
                paused = answer.status, (await answer.json())["reason"]
            async with admin.post("/resume") as answer:
                assert answer.status == 200
        await world.until_applied(dict.fromkeys(ORDERS, 8))
        assert await worker.terminate() == 0

        assert letter.headers["ow-reason"] == "rejected"
        assert (state["ready"], state["role"], state["partitions"], state["serving"]) == (True, "active", 4, 4)
        assert paused == (503, "manual")
        assert {line["queue"] for line in worker.heard("broker.consuming")} == {
            *queue_names(world.settings["QUEUE"], 4)
        }


async def test_a_replay_goes_through_the_hash_exchange(broker: PrivateBroker, tmp_path: Path) -> None:
    """The copy comes into the partition of its order, and is applied."""
    journal = f"sqlite:///{tmp_path / 'journal.db'}"
    async with DeadWorld(broker, tmp_path, partitions=4) as world:
        world.set_options(rejected_values={"status": {str(BAD): "no such status"}})
        await world.start(JOURNAL_URL=journal, STORM_RATIO="1")
        await world.publish([stamped(order, 1, status=BAD) for order in range(1, 9)])
        await world.until_there(8)
        world.set_options(rejected_values={})
        done = await world.yard(journal).json("--yes")
        await world.until_applied(dict.fromkeys(range(1, 9), BAD))

        assert done["states"]["moved"] == 8


async def test_migrating_under_workers_that_go_on_loses_nothing(broker: PrivateBroker, tmp_path: Path) -> None:
    """The old worker finishes what it has, the new one takes what comes; the command ends when the old one is gone."""
    async with World(broker, tmp_path) as world:
        old = await world.start()
        await world.publish([stamped(order, 1, status=4) for order in ORDERS])
        world.set_options(latency_s=0.5)
        async with tool_of(world).started("topology", "--migrate", **partitioned(3)) as migrating:
            assert migrating.stdout is not None
            async with asyncio.timeout(DEADLINE_S):
                assert (await migrating.stdout.readline()).startswith(b"fed are now:")
            new = await world.start(**partitioned(3))
            await world.publish([stamped(order, 2, status=8) for order in ORDERS])
            assert await old.terminate() == 0
            world.set_options(latency_s=0.01)
            done = await finished(migrating)
        await world.until_applied(dict.fromkeys(ORDERS, 8))
        assert await new.terminate() == 0
        again = await tool_of(world).run("topology", "--migrate", "--json", stdin=b"", **partitioned(3))

        assert (done.code, done.stdout.splitlines()[-1]) == (0, "migrated")
        assert f'"moved": {{"{world.settings["QUEUE"]}": 0}}' in again.stdout
        assert world.dead == []


async def test_a_migration_that_is_interrupted_can_be_run_again(broker: PrivateBroker, tmp_path: Path) -> None:
    """Ctrl-C while it waits for a worker: the rest is moved by the next run."""
    async with World(broker, tmp_path) as world:
        await world.publish([stamped(order, 1) for order in ORDERS])
        world.set_options(latency_s=3.0)
        old = await world.start(MAX_BATCH="10", PREFETCH="40")
        async with tool_of(world).started("topology", "--migrate", **partitioned(3)) as migrating:
            assert migrating.stdout is not None
            async with asyncio.timeout(DEADLINE_S):
                while b"a worker finishes it" not in await migrating.stdout.readline():
                    pass
            migrating.send_signal(signal.SIGINT)
            stopped = await finished(migrating)
        await old.kill()
        world.set_options(latency_s=0.01)
        done = await tool_of(world).run("topology", "--migrate", "--json", stdin=b"", **partitioned(3))
        await world.start(**partitioned(3))
        await world.until_applied(dict.fromkeys(ORDERS, 1))

        assert stopped.code != 0
        assert done.code == 0, done.stderr


async def test_settings_that_do_not_fit_the_broker_are_refused_with_what_to_do(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    """In either direction; the worker does not wait for it to become right."""
    for there, wanted in ((1, 3), (3, 1)):
        async with World(broker, tmp_path, partitions=there) as world:
            hash_exchange = generation.hash_exchange() if wanted > 1 else ""
            worker = await world.launch(PARTITIONS=str(wanted), HASH_EXCHANGE=hash_exchange)

            assert await worker.ended() == 2
            assert "topology --migrate" in worker.output


async def test_a_journal_in_memory_is_refused_before_anything_is_connected(tmp_path: Path) -> None:
    """Partitions do not keep the order, the journal does."""
    tool = Tool(tmp_path, "amqp://guest:guest@127.0.0.1:9/", unique_topology())
    done = await tool.run("run", stdin=b"", JOURNAL_URL="memory", **partitioned(2))

    assert done.code == 2
    assert "ORDER_WORKER_PARTITIONS, ORDER_WORKER_JOURNAL_URL" in done.stderr


async def test_check_knows_partitions_and_what_was_left_behind(
    broker: PrivateBroker, outside: Outside, tmp_path: Path, names: Topology
) -> None:
    """Each queue is looked at; an SQLite journal is a warning; messages in a queue that nobody feeds are broken."""
    tool = Tool(tmp_path, broker.url, names)
    async with platform() as (_, settings):
        fresh = await tool.run("topology", "--migrate", stdin=b"", **settings, **partitioned(3))
        for order in range(1, 31):
            await outside.publish(names.exchanges[0].name, str(order), {"id": order})
        await outside.until_some(queue_names(names.work_queue, 3)[2])
        well = await check(tool, **settings, **partitioned(3))
        wrong = await check(tool, **settings, **partitioned(2))

    assert fresh.code == 0, fresh.stderr
    assert well.of("broken") == {}
    queues = queue_names(names.work_queue, 3)
    assert {f"queue {queue}" for queue in queues} <= well.of("ok").keys()
    assert {f"may read queue {queue}" for queue in queues} <= well.of("ok").keys()
    assert {f"work queue {queue}" for queue in queues} <= well.of("note").keys()
    assert any("SQLite" in each["seen"] for each in well.about("partitions"))
    assert [each["level"] for each in wrong.about(f"queue {queues[2]}")] == ["broken"]
