"""The worker does its work on either event loop, and says which one it is."""

from pathlib import Path

import pytest

from tests.support.workerprocess import WorkerProcess
from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker

ORDERS = range(1, 301)


@pytest.mark.broker
@pytest.mark.parametrize(("wanted", "used"), [("asyncio", "asyncio"), ("uvloop", "uvloop"), ("auto", "uvloop")])
async def test_events_are_worked_off_and_sigterm_drains(
    broker: PrivateBroker, tmp_path: Path, wanted: str, used: str
) -> None:
    """Everything applied, a bad event dead, nothing left in the broker, exit code 0."""
    async with World(broker, tmp_path) as world:
        worker = await world.start(EVENT_LOOP=wanted)
        await world.publish(stamped(order_id, 4) for order_id in ORDERS)
        await world.publish_raw(b"no event", "1")
        await world.until_applied(dict.fromkeys(ORDERS, 4))
        await world.until_dead(1)

        assert await worker.terminate() == 0
        assert worker.heard("worker.starting", event_loop=used)
        assert worker.counts["applied"] == len(ORDERS)
        assert await world.leftover() == 0


async def test_a_uvloop_that_cannot_be_used_ends_with_exit_code_2(tmp_path: Path) -> None:
    """It says what to install."""
    metadata = tmp_path / "uvloop-0.22.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: uvloop\nVersion: 0.22.1\n")
    settings = {"EVENT_LOOP": "uvloop", "CLIENT_ID": "c", "CLIENT_SECRET": "secret-of-a-client"}
    worker = await WorkerProcess.start(settings, cwd=tmp_path)

    assert await worker.ended() == 2
    assert "ORDER_WORKER_EVENT_LOOP: uvloop is too old; install the extra `uvloop`" in worker.output
