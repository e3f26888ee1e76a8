"""Bad input and what it gets, on the real broker: a dead letter that a person can act on, and nobody else is harmed.

One worker meets the whole table at once, mixed with good events; the tests then look at what became of each case.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.odd import Latin1
from tests.support.world import DeadLetter, World, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

FIRST_ID = 9_000_000
FIRST_MATE = 5_000_000
MATES = 200
STORM_OF_BODIES = 600
BODY_BYTES = 66 * 1024


@dataclass(frozen=True)
class Case:
    """A bad message, the words that its dead letter must say, and those of its properties that must survive."""

    name: str
    body: bytes
    words: tuple[str, ...]
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)


def _event(**fields: Any) -> bytes:
    return json.dumps({"id": FIRST_ID, "status": 4, **fields}).encode()


BAD_STATUS = _event(status="four")
CASES = (
    Case("not JSON", b"status=4&id=17", ("body: not JSON",)),
    Case("cut off", _event()[:-1], ("body: not JSON",)),
    Case("not an object", b'[{"id": 1, "status": 4}]', ("body: expected a JSON object, got an array",)),
    Case("status is a text", BAD_STATUS, ("status: expected an integer, got a string",)),
    Case("status is a fraction", _event(status=4.5), ("status: expected an integer", "without point")),
    Case("status is a boolean", _event(status=True), ("status: expected an integer, got a boolean",)),
    Case("carrier is a number", _event(shipping_carrier=7), ("shipping_carrier: expected a string",)),
    Case("carrier is empty", _event(shipping_carrier=""), ("shipping_carrier: empty", "leave the field out")),
    Case("id is a text", _event(id="17"), ("id: expected an integer, got a string",)),
    Case("no id", b'{"status": 4}', ("id: missing", "order id")),
    Case("id 0", _event(id=0), ("id: expected an integer from 1",)),
    Case("id of 64 bits", _event(id=2**63), ("id: expected an integer from 1 to 9223372036854775807",)),
    Case("id of 100 digits", _event(id=10**100), ("id", "9223372036854775807")),
    Case("unknown field", _event(colour="red"), ("colour: unknown field", "EXTRA_FIELDS", "IGNORE_FIELDS")),
    Case("nothing to change", b'{"id": 17}', ("nothing to change", "status", "shipping_carrier")),
    Case("65 KiB", _event(shipping_method="x" * 66_560), ("bytes, at most 65536",)),
    Case("year 2099", _event(occurred_at="2099-01-01T00:00:00Z"), ("occurred_at", "in the future", "MAX_CLOCK_SKEW_S")),
    Case("no offset", _event(occurred_at="2026-11-21T10:00:00"), ("occurred_at: not a valid time", "offset")),
    Case("NaN", b'{"id": 17, "status": NaN}', ("status: expected an integer, got NaN",)),
    Case("deep nesting", b'{"id": 17, "source": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", ("nested too deeply",)),
    Case("invalid UTF-8", b'{"id": 17, "shipping_carrier": "\xff"}', ("not valid UTF-8",)),
    Case("empty body", b"", ("body: empty",)),
    Case("header of 100 kB", BAD_STATUS, ("status: expected",), headers={"trace": "h" * 100_000}),
    Case("header of 110 kB", BAD_STATUS, ("status: expected",), headers={"trace": "h" * 110_000}),
    Case("header in Latin-1", BAD_STATUS, ("status: expected",), headers={"city": Latin1("Orl\xe9ans")}),
    Case(
        "properties that route or expire",
        BAD_STATUS,
        ("status: expected",),
        headers={"CC": ["elsewhere"], "x-trace": "t-1", "tenant": "north"},
        properties={"priority": 7, "expiration": "3600000", "user_id": "guest", "message_type": "order-event"},
    ),
    Case("encoded body", b"\x1f\x8b\x08\x00", ("content_encoding",), properties={"content_encoding": "gzip"}),
)
BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Aftermath:
    """What was there when the worker had met the whole table."""

    letters: Mapping[str, DeadLetter]
    mates_applied: int
    wide_header_applied: bool
    went_on: bool
    counts: Mapping[str, int]
    leftover: int
    calls: int


@pytest.fixture(scope="module")
def aftermath(broker: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    """The table met by one worker."""
    return asyncio.run(_meet(broker, tmp_path_factory.mktemp("poison")))


async def _meet(broker: PrivateBroker, folder: Path) -> Aftermath:
    async with World(broker, folder) as world:
        # All bad events may be decided before the first good one: that is a storm, and not what is looked at here.
        worker = await world.start(STORM_RATIO="1")
        mates = [stamped(FIRST_MATE + number, 8) for number in range(MATES)]
        await asyncio.gather(
            world.publish(mates),
            *(_publish(world, case) for case in CASES),
            world.publish_raw(_event(id=FIRST_ID + 1), "1", headers={"trace": "h" * 100_000}),
        )
        letters = await world.until_dead(len(CASES))
        await world.until_applied({mate["id"]: 8 for mate in mates})
        await world.publish([stamped(FIRST_ID + 2, 8)])
        await world.until_applied({FIRST_ID + 2: 8})
        assert await worker.terminate() == 0
        return Aftermath(
            letters={letter.properties.correlation_id or "": letter for letter in letters},
            mates_applied=sum(world.status(mate["id"]) == 8 for mate in mates),
            wide_header_applied=world.status(FIRST_ID + 1) == 4,
            went_on=world.status(FIRST_ID + 2) == 8,
            counts=worker.counts,
            leftover=await world.leftover(),
            calls=len(world.calls),
        )


async def _publish(world: World, case: Case) -> None:
    properties = {"headers": case.headers, "correlation_id": case.name, "app_id": "erp", **case.properties}
    await world.publish_raw(case.body, f"key of {case.name}", message_id=f"id of {case.name}", **properties)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_dead_lettered_with_words_to_act_on_and_its_body_as_it_was(
    aftermath: Aftermath, case: Case
) -> None:
    """Reason invalid-event, a detail that points at the fault, the body byte for byte, and where it came from."""
    letter = aftermath.letters[case.name]

    assert letter.headers["ow-reason"] == "invalid-event"
    assert [word for word in case.words if word not in letter.headers["ow-detail"]] == []
    assert letter.body == case.body
    assert letter.headers["ow-routing-key"] == f"key of {case.name}"
    assert letter.headers["ow-message-id"] == f"id of {case.name}"
    assert (letter.properties.app_id, letter.properties.content_type) == ("erp", "application/json")


def test_everybody_else_is_applied_and_nothing_is_left(aftermath: Aftermath) -> None:
    """Batch mates of bad messages, and a good event that came after them all."""
    assert aftermath.mates_applied == MATES
    assert aftermath.went_on
    assert aftermath.leftover == 0
    assert aftermath.counts["dead"] == len(CASES)
    assert aftermath.counts["delivered"] == MATES + len(CASES) + 2


def test_a_wide_header_is_no_fault_of_the_event(aftermath: Aftermath) -> None:
    """A good event with a header of 100 kB is applied."""
    assert aftermath.wide_header_applied


def test_headers_are_kept_up_to_the_budget_and_named_beyond_it(aftermath: Aftermath) -> None:
    """100,000 bytes stay; 110,000 do not fit, and the dead letter names what is missing."""
    kept, dropped = aftermath.letters["header of 100 kB"], aftermath.letters["header of 110 kB"]

    assert kept.headers["trace"] == "h" * 100_000
    assert "ow-dropped" not in kept.headers
    assert "trace" not in dropped.headers
    assert json.loads(dropped.headers["ow-dropped"]) == ["trace"]


def test_a_header_that_cannot_be_sent_again_is_shown(aftermath: Aftermath) -> None:
    """The client cannot encode what is not UTF-8: the copy shows its bytes instead."""
    headers = aftermath.letters["header in Latin-1"].headers

    assert json.loads(headers["ow-original"]) == {"headers.city": {"base64": "T3Js6WFucw=="}}


def test_what_would_reroute_or_expire_the_copy_is_shown_and_the_rest_kept(aftermath: Aftermath) -> None:
    """CC, x- headers, expiration and user id move into ow-original; priority, type and other headers stay."""
    letter = aftermath.letters["properties that route or expire"]
    original = json.loads(letter.headers["ow-original"])

    assert {"expiration": "3600000", "user_id": "guest", "headers.CC": ["elsewhere"]}.items() <= original.items()
    assert original["headers.x-trace"] == "t-1"
    assert (letter.properties.expiration, letter.properties.user_id) == (None, None)
    assert not {"CC", "x-trace"} & letter.headers.keys()
    assert (letter.properties.priority, letter.properties.message_type) == (7, "order-event")
    assert letter.headers["tenant"] == "north"


async def test_memory_stays_flat_however_many_bad_bodies_come(broker: PrivateBroker, tmp_path: Path) -> None:
    """40 MB of oversized bodies pass through a worker that may hold 100 messages (6.6 MB) at a time."""
    async with World(broker, tmp_path) as world:
        worker = await world.start(PREFETCH="100", MAX_BATCH="25", STORM_RATIO="1")
        await world.publish([stamped(1, 4)])
        await world.until_applied({1: 4})
        before = worker.resident_bytes()
        for _ in range(STORM_OF_BODIES // 100):
            await asyncio.gather(*(world.publish_raw(b"x" * BODY_BYTES) for _ in range(100)))
        await world.until_dead(STORM_OF_BODIES)

        assert worker.resident_bytes(peak=True) - before < 20_000_000
