"""Replays with a worker behind them: what it makes of the copies is what the replay tells, and what stops it."""

from pathlib import Path

import pytest

from tests.support.deadworld import DeadWorld
from tests.support.world import stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

BAD = 66


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A durable journal of each kind, in the worker's words."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    return str(request.getfixturevalue("postgres_url"))


async def test_after_a_bad_night_the_newest_values_win(broker: PrivateBroker, tmp_path: Path, journal_url: str) -> None:
    """Letters that the worker made and indexed: replayed, superseded and told, each order at its greatest version."""
    async with DeadWorld(broker, tmp_path) as world:
        world.set_options(rejected_values={"status": {str(BAD): "no such status"}})
        await world.start(JOURNAL_URL=journal_url)
        await world.publish([stamped(7001, 1, status=BAD), stamped(7002, 1, status=BAD), stamped(7003, 1, status=BAD)])
        await world.until_there(3)
        await world.publish([stamped(7003, 2, status=8)])
        await world.until_applied({7003: 8})
        world.set_options(rejected_values={})
        yard, sent = world.yard(journal_url), world.calls_for(7003)
        done = await yard.json("--yes")
        await world.until_applied({7001: BAD, 7002: BAD, 7003: 8})
        await world.until_there(0)
        status = await yard.status(done["replay_id"])

        assert (done["plan"]["apply"], done["plan"]["superseded"]) == (2, 1)
        assert (done["states"]["moved"], done["states"]["superseded"]) == (2, 1)
        told = {message["order_id"]: message["outcome"] for message in status["messages"]}
        assert {order: (each["disposition"], each["reason"]) for order, each in told.items()} == {
            7001: ("ack", "applied"), 7002: ("ack", "applied"), 7003: ("ack", "superseded"),
        }  # fmt: skip
        assert world.calls_for(7003) == sent


async def test_a_canary_that_fails_stops_the_rest(broker: PrivateBroker, tmp_path: Path) -> None:
    """The platform still refuses them: three go, are dead again, and tell so; the others were not touched."""
    async with DeadWorld(broker, tmp_path) as world:
        url = f"sqlite:///{tmp_path / 'journal.db'}"
        world.set_options(rejected_values={"status": {str(BAD): "no such status"}})
        await world.start(JOURNAL_URL=url, STORM_RATIO="1")
        await world.publish([stamped(order, 1, status=BAD) for order in range(1, 11)])
        await world.until_there(10)
        yard = world.yard(url)
        stopped = await yard.json("--yes", "--canary", "3", code=1)
        await world.until_there(10)
        world.set_options(rejected_values={})
        plan = await yard.json()
        resumed = await yard.json("--resume", stopped["replay_id"])
        rest = await yard.json("--yes", "--canary", "2")
        await world.until_applied(dict.fromkeys(range(1, 11), BAD))
        await world.until_there(0)

        assert stopped["ended"] == "failures"
        assert "are dead letters again (rejected), 0 are allowed" in stopped["detail"]
        assert (stopped["states"]["moved"], stopped["states"]["planned"]) == (3, 7)
        assert plan["matched"] == 10
        assert resumed["states"]["moved"] == 10
        assert rest["plan"]["matched"] == 3


async def test_a_terminal_order_takes_a_replay_only_where_that_is_said(broker: PrivateBroker, tmp_path: Path) -> None:
    """The plan knows that it would come straight back; --allow-terminal makes the worker send it."""
    async with DeadWorld(broker, tmp_path) as world:
        url = f"sqlite:///{tmp_path / 'journal.db'}"
        await world.start(JOURNAL_URL=url, STORM_RATIO="1")
        await world.publish([stamped(1, 1, status=64)])
        await world.until_applied({1: 64})
        await world.publish([stamped(1, 2, status=5)])
        await world.until_there(1)
        yard = world.yard(url)
        plan = await yard.json()
        done = await yard.json("--allow-terminal", "--yes", "--canary", "1")
        await world.until(lambda: world.calls_for(1) == 2)

        assert (plan["returns"], plan["by_reason"][0]["reason"]) == (1, "terminal-order")
        assert (done["plan"]["apply"], done["states"]["moved"]) == (1, 1)
