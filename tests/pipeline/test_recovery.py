"""Outages: hold, probe with calls that touch no order, pause when it lasts, resume by itself, settle nothing wrong."""

import asyncio
import time
from collections.abc import MutableMapping
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest

from tests.pipeline.fakes import AWAY, BUSY, FORBIDDEN, LOST
from tests.pipeline.world import World
from tests.support.modelplatform import rest_error
from worker.core.errors import TokenRefused, TokenUnavailable
from worker.core.model import AckReason
from worker.core.report import CallReport, Insecure, Reply

Logs = list[MutableMapping[str, Any]]


def events(logs: Logs) -> list[str]:
    return [line["event"] for line in logs if line["event"].startswith("platform.")]


async def outage(world: World, report: CallReport) -> None:
    """Started, and one call went wrong."""
    await world.start()
    world.platform.down = report
    world.publish(1, 1)
    await world.until(lambda: not world.breaker.running)


@pytest.mark.parametrize("report", [AWAY, BUSY, Reply(status=408), Reply(status=599)], ids=lambda r: str(r)[:20])
async def test_an_outage_is_held_probed_and_recovered(world: World, report: CallReport, logs: Logs) -> None:
    """Nothing is settled, only control calls go out; then everything that gathered is sent."""
    await outage(world, report)
    for order_id in range(2, 50):
        world.publish(order_id, 1)
    await world.advance(60.0)
    held = len(world.queue.unsettled)
    probes = [call for call in world.platform.calls[2:] if not call.is_control]
    world.platform.down = None
    await world.until_settled(10.0)

    assert held == 49
    assert probes == []
    assert world.platform.sent[1:] == [list(range(1, 50))]
    assert world.fates() == {AckReason.APPLIED: 49}
    assert world.intake.releases == 0
    assert [name for name in events(logs) if name != "platform.probe_failed"] == ["platform.hold", "platform.recovered"]


async def test_probes_back_off_with_jitter_within_bounds(world: World) -> None:
    """At most 5 s between them, not in step, and never several at once."""
    await outage(world, AWAY)
    await world.advance(200.0)
    starts = [call.began for call in world.platform.calls[2:]]
    gaps = [later - earlier for earlier, later in pairwise(starts)]

    assert max(gaps) <= 5.1
    assert 30 <= len(starts) <= 400
    assert len({round(gap, 3) for gap in gaps}) > len(gaps) / 2
    assert world.platform.most_at_once == 1
    world.platform.down = None


async def test_a_hold_that_lasts_becomes_a_pause_and_ends_by_itself(world: World, logs: Logs) -> None:
    """Past the hold limit all goes back to the broker; probing goes on; recovered, it consumes again."""
    await outage(world, AWAY)
    await world.advance(290.0)
    assert world.holding
    assert world.intake.consuming
    await world.until(lambda: world.paused, 20.0)
    await world.until(lambda: not world.intake.channel_open, 1.0)
    world.publish(2, 1)
    await world.advance(100.0)
    probes = len(world.platform.calls)
    await world.advance(100.0)

    assert len(world.queue.ready) == 2
    assert len(world.platform.calls) > probes + 15
    world.platform.down = None
    await world.until_settled(10.0)
    assert world.fates() == {AckReason.APPLIED: 2}
    assert world.pipeline.counts["released"] == 1
    assert [name for name in events(logs) if name != "platform.probe_failed"] == [
        "platform.hold",
        "platform.paused",
        "platform.recovered",
    ]


@pytest.mark.parametrize(
    "report",
    [FORBIDDEN, rest_error("invalid token", 401), Insecure(cause="bad certificate"), rest_error("gone", 404)],
    ids=["control call forbidden", "token refused", "tls", "not found"],
)
async def test_auth_and_configuration_pause_at_once(world: World, report: CallReport) -> None:
    """Not the message's fault and nothing that passes soon: hand back, probe, resume."""
    await outage(world, report)
    await world.until(lambda: world.paused and not world.intake.channel_open, 2.0)
    await world.advance(1000.0)
    assert world.queue.acked == {}
    world.platform.down = None
    await world.until_settled(10.0)

    assert world.fates() == {AckReason.APPLIED: 1}


async def test_credentials_that_are_refused_pause(world: World) -> None:
    """The token endpoint says no: nothing is sent, nothing is settled, until it says yes."""
    await world.start()
    world.tokens.failure = TokenRefused("invalid_client")
    world.publish(1, 1)
    await world.until(lambda: world.paused and not world.intake.channel_open)
    calls = len(world.platform.calls)
    await world.advance(100.0)
    assert len(world.platform.calls) == calls
    world.tokens.failure = None
    await world.until_settled(10.0)

    assert world.fates() == {AckReason.APPLIED: 1}


async def test_no_token_to_be_had_is_an_outage(world: World) -> None:
    """The token endpoint is down: hold."""
    await world.start()
    world.tokens.failure = TokenUnavailable("connection refused")
    world.publish(1, 1)
    await world.until(lambda: world.holding)
    await world.advance(20.0)
    world.tokens.failure = None
    await world.until_settled(10.0)

    assert world.fates() == {AckReason.APPLIED: 1}
    assert world.intake.releases == 0


@pytest.mark.parametrize("kind", ["seconds", "date"])
async def test_retry_after_holds_all_slots(world: World, kind: str) -> None:
    """No call of any kind before that time, then a probe soon."""
    await world.start()
    wanted = "40" if kind == "seconds" else formatdate(time.time() + 40, usegmt=True)
    world.platform.script.append(Reply(status=429, retry_after=wanted))
    world.publish(1, 1)
    await world.until(lambda: world.holding)
    began, calls = world.now, len(world.platform.calls)
    world.publish(2, 1)
    await world.until_settled()

    assert began + 37.0 <= world.platform.calls[calls].began <= began + 50.0
    assert world.fates() == {AckReason.APPLIED: 2}


async def test_a_wait_beyond_the_hold_limit_releases_at_once(world: World) -> None:
    """An hour is known to be too long: others may have the messages meanwhile; no call before the hour is over."""
    await outage(world, Reply(status=503, retry_after="3600"))
    await world.until(lambda: world.paused and not world.intake.channel_open, 1.0)
    world.platform.down = None
    calls = len(world.platform.calls)
    await world.advance(3590.0)
    assert len(world.platform.calls) == calls
    await world.until_settled(30.0)

    assert world.fates() == {AckReason.APPLIED: 1}


@pytest.mark.parametrize("seed", range(20))
async def test_throttled_without_a_time_waits_a_second_to_five_minutes(world: World, seed: int) -> None:
    """Longer from probe to probe, never below 1 s, never above 5 min."""
    del seed  # another jitter each time
    await outage(world, Reply(status=429))
    await world.advance(1500.0)
    starts = [call.began for call in world.platform.calls[1:]]
    gaps = [later - earlier for earlier, later in pairwise(starts)]

    assert min(gaps) >= 1.0
    assert max(gaps) <= 310.0
    assert world.queue.acked == {}
    world.platform.down = None
    await world.until_settled(400.0)


async def test_a_pause_during_a_retry_after_is_not_put_off(world: World) -> None:
    """One call is throttled, another one in flight hears that the address is wrong: that pauses at once."""
    await world.start()
    let_go = world.platform.hold(1)
    world.platform.script.extend([rest_error("gone", 404), Reply(status=429, retry_after="250")])
    world.publish(1, 1)
    await world.advance(0.1)
    world.publish(2, 1)
    await world.until(lambda: world.holding)
    await world.advance(10.0)
    let_go.set()

    await world.until(lambda: world.paused and not world.intake.channel_open, 1.0)


async def test_a_retry_after_that_comes_during_a_probe_holds_as_well(world: World) -> None:
    """The probe is accepted, but another call was asked to wait meanwhile: that holds for all slots."""
    await world.start()
    let_go = world.platform.hold(1)
    world.platform.script.extend([Reply(status=429, retry_after="60"), AWAY])
    world.publish(1, 1)
    await world.advance(0.1)
    world.publish(2, 1)
    await world.until(lambda: world.holding)
    world.platform.latency_s = 20.0
    calls = len(world.platform.calls)
    await world.until(lambda: len(world.platform.calls) > calls)
    let_go.set()
    await world.until(lambda: world.platform.calls[calls].ended)
    ended = world.now
    world.platform.latency_s = 0.05
    await world.until_settled(90.0)

    assert world.platform.calls[calls + 1].began >= ended + 35.0


async def test_five_silent_calls_are_an_outage(world: World) -> None:
    """Answers that never come: it does not go on sending into the dark."""
    await world.start()
    world.platform.hangs = True
    for order_id in range(1, 9):
        world.publish(order_id, 1)
        await world.advance(0.1)
    await world.until(lambda: not world.breaker.running, 120.0)
    world.platform.hangs = False
    await world.until_settled(120.0)

    assert world.fates() == {AckReason.APPLIED: 8}


async def test_an_outage_while_consumption_resumes_is_probed_for(world: World) -> None:
    """A call of before the pause fails after the probe was accepted: somebody must go on probing."""
    await world.start()
    let_go = world.platform.hold(1)
    world.platform.script.append(AWAY)
    world.publish(1, 1)
    await world.advance(0.1)
    world.platform.down = rest_error("gone", 404)
    world.publish(2, 1)
    await world.until(lambda: world.paused and not world.intake.channel_open)
    world.platform.down = None
    world.intake.slow = asyncio.Event()
    await world.until(lambda: world.breaker.running)
    let_go.set()
    await world.until(lambda: world.holding)
    world.intake.slow.set()
    await world.until_settled(20.0)

    assert world.fates() == {AckReason.APPLIED: 2}


async def test_probes_do_not_count_against_messages(world: World) -> None:
    """Hundreds of lost answers to probes: no attempt is used up, no order is in doubt."""
    await outage(world, AWAY)
    world.platform.down = LOST
    await world.advance(250.0)
    world.platform.down = None
    await world.until_settled(20.0)

    assert world.fates() == {AckReason.APPLIED: 1}
