"""A worker that is frozen between its claim and its call: it sends an old value when everybody has stopped waiting."""

import signal
from pathlib import Path

import pytest

from tests.rivals.conftest import JournalOf
from tests.support.rivals import Rivals
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

ALERT = "?heartbeat=1"
"""The broker gives a silent worker up after 3 s."""
ORDER = 7


async def test_what_a_frozen_worker_sends_after_its_claim_expired_does_not_stay(
    broker: PrivateBroker, passive_url: str, journal_of: JournalOf, tmp_path: Path
) -> None:
    """Somebody else applied a later value and sent its echo meanwhile, so the late one mends what it did by itself."""
    stalling = ("tests.support.stalling", str(ORDER))
    async with Rivals(broker, tmp_path, journal_of("run"), passive_url + ALERT, seed=1, latency_s=0.0) as rivals:
        arena, history = rivals.arena, rivals.arena.simulator.platform.orders.history
        keys = [arena.accounting.make(ORDER) for _ in range(5)]
        frozen = await rivals.start(stalling)
        await rivals.arena.publish(keys[:1])
        await arena.until(lambda: frozen.stopped)
        await rivals.start(("tests.support.impatient",))
        await rivals.arena.publish(keys[1:])
        await arena.until(lambda: len(history) > 0)
        await rivals.agreed()
        written = len(history)
        frozen.send(signal.SIGCONT)
        await arena.until(lambda: len(history) > written + 1)
        late = history[written]
        await rivals.agreed()
        verdict = await rivals.ended()

    assert (late.before.status, late.after.status) == (1005, 1001)
    verdict.assert_good()
