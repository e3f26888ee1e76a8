"""Messages whose properties the AMQP library cannot decode, on the real broker: they are handled like any other.

The stock decoder would end the connection at each of them, for ever, and nothing behind them would be consumed.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Basic

from tests.support.broker import Lanes
from tests.support.odd import MICROSECONDS, InMicroseconds, Latin1
from tests.support.world import DeadLetter, World, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

FIRST_GOOD = 7_000_000
FIRST_MATE = 5_000_000
MATES = 200
CAFE = "caf\\udce9"
"""What is shown of the ISO 8859-1 bytes of "café"."""


@dataclass(frozen=True)
class Case:
    """What is odd about a message, and what its dead letter shows of it (``ow-original``)."""

    name: str
    shown: Mapping[str, Any]
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    *(
        Case(name, {name: CAFE}, properties={name: Latin1("caf\xe9")})
        for name in ("content_type", "content_encoding", "correlation_id", "reply_to", "message_type", "app_id")
    ),
    Case("message_id", {}, properties={"message_id": Latin1("caf\xe9")}),
    Case("expiration", {"expiration": "3600000"}, properties={"expiration": "3600000"}),
    Case("timestamp", {"timestamp": MICROSECONDS}, properties={"timestamp": InMicroseconds.make()}),
    Case("header name", {f"headers.{CAFE}": "north"}, headers={Latin1("caf\xe9"): "north"}),
    Case("nested name", {"headers.at": {CAFE: 1}}, headers={"at": {Latin1("caf\xe9"): 1}}),
    Case("header time", {}, headers={"sent": InMicroseconds.make()}),
)
GOOD = {case.name: FIRST_GOOD + number for number, case in enumerate(CASES)}


@dataclass(frozen=True)
class Aftermath:
    """What was there when the worker had met every case twice: with a good body and with a bad one."""

    letters: Mapping[str, DeadLetter]
    applied: Mapping[str, bool]
    mates_applied: int
    counts: Mapping[str, int]
    connects: int
    lanes: tuple[str, str]
    leftover: int


@pytest.fixture(scope="module", params=["fast", "ordinary"])
def aftermath(
    broker: PrivateBroker, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Aftermath:
    """All of them met by one worker, on either lane."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lanes, "fast", request.param == "fast")
        return asyncio.run(_meet(broker, tmp_path_factory.mktemp("frames")))


async def _meet(broker: PrivateBroker, folder: Path) -> Aftermath:
    async with World(broker, folder) as world:
        # Good bodies with a content encoding are refused, as they should be: they are dead letters, too.
        good = [case for case in CASES if case.name != "content_encoding"]
        mates = [stamped(FIRST_MATE + number, 8) for number in range(MATES)]
        await asyncio.gather(
            world.publish(mates),
            *(_publish(world, case, json.dumps(stamped(GOOD[case.name], 8)).encode()) for case in good),
            *(_publish(world, case, b"not JSON") for case in CASES),
        )
        worker = await world.start()
        letters = await world.until_dead(len(CASES))
        await world.until_applied({GOOD[case.name]: 8 for case in good} | {mate["id"]: 8 for mate in mates})
        assert await worker.terminate() == 0
        return Aftermath(
            letters={letter.headers["ow-routing-key"]: letter for letter in letters},
            applied={case.name: world.status(GOOD[case.name]) == 8 for case in good},
            mates_applied=sum(world.status(mate["id"]) == 8 for mate in mates),
            counts=worker.counts,
            lanes=("fast" if Lanes.fast else "ordinary", worker.heard("broker.consuming")[0]["lane"]),
            connects=len(worker.heard("broker.connected")),
            leftover=await world.leftover(),
        )


async def _publish(world: World, case: Case, body: bytes) -> None:
    usual = {"message_id": f"id of {case.name}", "app_id": "erp", "priority": 7}
    await world.publish_raw(
        body, case.name, **{**usual, "headers": {"tenant": "north", **case.headers}, **case.properties}
    )


def test_a_good_event_is_applied_whatever_its_properties_are(aftermath: Aftermath) -> None:
    """Nothing in them changes what the body asks for."""
    assert [name for name, applied in aftermath.applied.items() if not applied] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_event_is_dead_lettered_with_its_odd_property_readable(aftermath: Aftermath, case: Case) -> None:
    """The body as it was, the good properties kept, the odd one shown and not sent again."""
    letter = aftermath.letters[case.name]
    shown = json.loads(letter.headers.get("ow-original", "{}"))

    assert (letter.body, letter.headers["ow-reason"]) == (b"not JSON", "invalid-event")
    assert shown == case.shown
    assert (letter.headers["tenant"], letter.properties.priority) == ("north", 7)
    assert _odd(letter.properties) == []


def test_an_odd_message_id_is_kept_readable(aftermath: Aftermath) -> None:
    """It has a header of its own."""
    assert aftermath.letters["message_id"].headers["ow-message-id"] == CAFE


def test_a_header_with_a_time_that_is_none_keeps_its_number(aftermath: Aftermath) -> None:
    """As a number: no client could write it as a time."""
    assert aftermath.letters["header time"].headers["sent"] == MICROSECONDS


def test_nobody_else_is_harmed(aftermath: Aftermath) -> None:
    """One life of both connections, no redelivery, every mate applied, nothing left; by the lane that was asked for."""
    assert aftermath.lanes[0] == aftermath.lanes[1]
    assert aftermath.connects == 2
    assert aftermath.mates_applied == MATES
    assert aftermath.counts["delivered"] == MATES + 2 * len(CASES) - 1
    assert aftermath.leftover == 0


def _odd(properties: Basic.Properties) -> list[str]:
    texts = [getattr(properties, name) for name in properties.__slots__ if name != "headers"]
    return [text for text in texts if isinstance(text, str) and not text.isascii()]
