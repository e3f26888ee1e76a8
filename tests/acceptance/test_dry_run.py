"""``order-worker run --dry-run``: what it tells, and that nothing comes of it."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.workerprocess import WorkerProcess
from tests.support.world import World, stamped
from worker.adapters.journal.sql import SqlJournal
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

CARRIER = "Planted Carrier Ltd"
DRY = ("worker", "run", "--dry-run")


def sends(worker: WorkerProcess) -> dict[str, Any]:
    """Which fields of which orders would have been sent, by the log."""
    return {order: fields for line in worker.heard("dryrun.call") for order, fields in line["sends"].items()}


def summary(worker: WorkerProcess) -> dict[str, Any]:
    """The last line of its standard output."""
    found: dict[str, Any] = json.loads([line for line in worker.output.splitlines() if line.startswith('{"read"')][-1])
    return found


async def queues(world: World) -> list[str]:
    """The dry run's queues that the broker has."""
    listed = world.broker.ctl("-q", "list_queues", "name").split()
    return [name for name in listed if name.startswith(f"{world.settings['QUEUE']}.dry-run.")]


async def test_it_tells_what_would_be_sent_and_touches_nothing(broker: PrivateBroker, tmp_path: Path) -> None:
    """Without credentials: merged calls, a needless and an invalid event; the work queue keeps every event, the
    platform hears nothing, the journal's file is byte for byte what it was, and the queue of copies is gone."""
    async with World(broker, tmp_path) as world:
        file = tmp_path / f"{world.settings['QUEUE']}.db"
        await (await first_run(world)).terminate()
        calls, before = world.all_calls, await known(file)
        dry = await world.launch(program=(*DRY, "--count", "6", "--json"), CLIENT_SECRET="", LINGER_S="0.5")
        await dry.until_heard("dryrun.started")
        assert len(await queues(world)) == 1
        await world.publish([stamped(1, 3), stamped(2, 8), stamped(2, 9, shipping_carrier=CARRIER), stamped(3, 5)])
        await world.publish([{"id": 4, "status": CARRIER}, stamped(3, 4)])

        assert await dry.ended() == 0
        assert sends(dry) == {"2": ["status", "shipping_carrier"], "3": ["status"]}
        assert {line["order_id"] for line in dry.heard("dryrun.needless")} == {1, 3}
        assert [line["dry_run"] for line in dry.heard("message.dead")] == [True]
        told = summary(dry)
        assert (told["read"], told["applied"], told["superseded"]) == (6, 3, 2)
        assert told["dead"] == {"invalid-event": 1}
        assert CARRIER not in dry.output
        assert world.all_calls == calls
        assert world.dead == []
        assert await known(file) == before
        assert await queues(world) == []
        assert await world.leftover() == 6


async def first_run(world: World) -> WorkerProcess:
    """A worker that applied status 4 of order 1, which the journal knows from then on."""
    worker = await world.start()
    await world.publish([stamped(1, 4)])
    await world.until_applied({1: 4})
    await worker.until(lambda heard: heard.heard("worker.ready"))
    return worker


async def known(file: Path) -> tuple[object, int]:
    """What the journal has of the orders, and how many rows of history."""
    journal = SqlJournal(f"sqlite:///{file}")
    values = await journal.known([1, 2, 3])
    rows = [row for order_id in (1, 2, 3, 4) for row in await journal.history(order_id)]
    await journal.close()
    return values, len(rows)


async def test_values_are_printed_only_where_they_are_asked_for_and_a_signal_ends_it(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    """Beside a running worker: that one gets every event; a list of allowed orders holds here too, and needs no
    OTHERS; a journal that is not there is not made."""
    async with World(broker, tmp_path) as world:
        await world.start()
        options = {"ALLOW_ORDERS": "2", "JOURNAL_URL": "sqlite:///never-made.db", "CLIENT_ID": ""}
        dry = await world.launch(program=(*DRY, "--show-values"), **options)
        await dry.until_heard("dryrun.started")
        await dry.until_heard("broker.consuming")
        await world.publish([stamped(1, 8), stamped(2, 8, status=8, shipping_carrier=CARRIER)])
        await world.until_applied({1: 8, 2: 8})
        await dry.until_heard("dryrun.call")
        await dry.until_heard("message.dead")
        dry.send(signal.SIGINT)

        assert await dry.ended() == 0
        assert f'[{{"id": 2, "status": 8, "shipping_carrier": "{CARRIER}"}}]' in dry.output.splitlines()
        assert "would be a dead letter: not-allowed" in dry.output
        assert "Dry run: nothing was sent" in dry.output
        assert not (tmp_path / "never-made.db").exists()
        assert await queues(world) == []


async def test_options_of_a_dry_run_mean_nothing_without_it(tmp_path: Path) -> None:
    """Whoever forgets --dry-run must not start the real thing."""
    worker = await WorkerProcess.start({}, cwd=tmp_path, program=("worker", "run", "--seconds", "5"))

    assert await worker.ended() == 2
    assert "belong to --dry-run" in worker.output


async def test_a_missing_exchange_ends_with_exit_code_2(broker: PrivateBroker, tmp_path: Path) -> None:
    """Nothing is declared but the queue of copies, which goes again."""
    async with World(broker, tmp_path) as world:
        dry = await world.launch(program=DRY, EXCHANGE="nobody-publishes-here")

        assert await dry.ended() == 2
        assert "is missing" in dry.output
        assert await queues(world) == []
