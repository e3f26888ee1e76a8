"""``order-worker dead``: what people see of the dead-letter queue, and that it is the same queue afterwards."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.builders import NOW_US, make_delivery
from tests.support.broker import Outside, unique_topology
from tests.support.tool import Finished, Tool, take_all
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.headers import dead_copy
from worker.core.model import Dead, Properties, Reason, Settlement

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("no_leaks")]

HOUR = 3_600_000_000


@pytest.fixture
def tool(tmp_path: Path, broker: PrivateBroker, queues: Topology) -> Tool:
    """The command, on a declared topology of this test."""
    return Tool(tmp_path, broker.url, queues)


async def bury(
    outside: Outside, queue: str, body: bytes, reason: Reason, *, hours: int = 0, detail: str = "why", **given: Any
) -> None:
    """Put a dead letter there as the worker does."""
    settlement = Settlement(delivery=make_delivery(body, **given), disposition=Dead(reason=reason, detail=detail))
    copy = dead_copy(settlement, now_us=NOW_US + hours * HOUR, worker="1.0")
    properties = Properties(headers=copy.properties.headers, content_type=copy.properties.content_type)
    await outside.publish("", queue, copy.body, properties=properties)


async def bury_some(outside: Outside, queue: str) -> list[bytes]:
    """Three invalid ones, one rejected, one that is no text; their bodies in order."""
    for number in range(3):
        detail = f"id: missing [{number}]"
        await bury(
            outside, queue, b'{"n":%d}' % number, Reason.INVALID_EVENT, hours=number, detail=detail, routing_key="7"
        )
    await bury(outside, queue, b'{"id":8}', Reason.REJECTED, message_id="m-8", routing_key="8")
    await outside.publish("", queue, b"\xff\x00")
    await outside.until_ready(queue, 5)
    return [b'{"n":0}', b'{"n":1}', b'{"n":2}', b'{"id":8}', b"\xff\x00"]


def parsed(done: Finished) -> dict[str, Any]:
    """The JSON that it printed."""
    assert done.code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_list_twice_is_the_same_and_the_queue_too(tool: Tool, outside: Outside, queues: Topology) -> None:
    """Grouped with counts, oldest and newest; not a message is moved, lost or changed."""
    bodies = await bury_some(outside, queues.dead_queue)
    first = await tool.run("dead", "list", "--json", JOURNAL_URL="memory")
    await outside.until_ready(queues.dead_queue, 5)
    second = await tool.run("dead", "list", "--json", JOURNAL_URL="memory")
    await outside.until_ready(queues.dead_queue, 5)
    left = await take_all(outside, queues.dead_queue, 5)

    assert first.stdout == second.stdout
    assert parsed(first) == {
        "queue": queues.dead_queue,
        "source": "queue",
        "messages": 5,
        "seen": 5,
        "by": "reason",
        "groups": [
            {
                "reason": "invalid-event", "count": 3, "oldest": "2026-11-21T10:00:00.000000Z",
                "newest": "2026-11-21T12:00:00.000000Z", "example": "id: missing [2]",
            },
            {
                "reason": "rejected", "count": 1, "oldest": "2026-11-21T10:00:00.000000Z",
                "newest": "2026-11-21T10:00:00.000000Z", "example": "why",
            },
            {"reason": "unknown", "count": 1, "oldest": None, "newest": None, "example": ""},
        ],
    }  # fmt: skip
    assert [message.body for message in left] == bodies
    assert {(message.header.properties.headers or {})["x-delivery-count"] for message in left} == {2}
    assert "costs" not in first.stdout
    assert "cost one delivery count" in first.stderr


async def test_list_for_people_is_a_table(tool: Tool, outside: Outside, queues: Topology) -> None:
    """The same numbers, and details as they are: no markup."""
    await bury_some(outside, queues.dead_queue)
    done = await tool.run("dead", "list", JOURNAL_URL="memory")

    assert done.code == 0
    assert re.search(r"invalid-event\W+3\W+2026-11-21T10:00:00.000000Z\W+2026-11-21T12:00:00.000000Z", done.stdout)
    assert "id: missing [2]" in done.stdout


async def test_show_selects_and_leaves_the_queue_alone(tool: Tool, outside: Outside, queues: Topology) -> None:
    """By order, id or reason, oldest first, at most the limit."""
    bodies = await bury_some(outside, queues.dead_queue)
    looks = {
        ("--order", "7"): [0, 1, 2],
        ("--reason", "invalid-event", "--limit", "2"): [0, 1],
        ("--message-id", "m-8"): [3],
        ("--limit", "1"): [0],
        ("--order", "99"): [],
    }
    for options, expected in looks.items():
        done = await tool.run("dead", "show", "--json", "--body", *options)
        await outside.until_ready(queues.dead_queue, 5)
        assert [letter["body"].encode() for letter in parsed(done)["letters"]] == [bodies[each] for each in expected]

    assert [message.body for message in await take_all(outside, queues.dead_queue, 5)] == bodies


async def test_show_tells_everything_about_a_letter(tool: Tool, outside: Outside, queues: Topology) -> None:
    """Why, when, whose, where from, what was left out of the copy; the body only when asked for."""
    await bury(
        outside, queues.dead_queue, b"\xff", Reason.INVALID_EVENT, detail="not UTF-8", message_id="m-1",
        routing_key="46140199", headers={"trace": "t-1", "x-source": "line 4"},
    )  # fmt: skip
    shown = parsed(await tool.run("dead", "show", "--json", "--body"))["letters"][0]
    await outside.until_ready(queues.dead_queue, 1)
    for_people = await tool.run("dead", "show")

    assert {name: shown[name] for name in ("reason", "detail", "failed_at", "order_id", "message_id", "exchange")} == {
        "reason": "invalid-event", "detail": "not UTF-8", "failed_at": "2026-11-21T10:00:00.000000Z",
        "order_id": 46140199, "message_id": "m-1", "exchange": "order-updates",
    }  # fmt: skip
    assert shown["copy_id"] != "m-1"
    assert (shown["worker"], shown["attempts"], shown["size"]) == ("1.0", 1, 1)
    assert shown["headers"]["trace"] == "t-1"
    assert shown["original"] == {"headers.x-source": "line 4"}
    assert shown["body_base64"] == "/w=="
    assert "invalid-event  order 46140199" in for_people.stdout
    assert "\n  body" not in for_people.stdout


async def test_the_brokers_own_dead_letters_are_understood(
    tmp_path: Path, broker: PrivateBroker, outside: Outside
) -> None:
    """A message that killed its workers too often carries no header of ours, but it says who took it and when."""
    names = unique_topology(delivery_limit=1)
    await declare(outside.connection, names)
    await outside.publish(names.exchanges[0].name, "7", {"id": 7})
    for _ in range(2):
        await outside.take(names.work_queue, hand_back=True)
    await outside.until_ready(names.dead_queue, 1)
    tool = Tool(tmp_path, broker.url, names)
    group = parsed(await tool.run("dead", "list", "--json", JOURNAL_URL="memory"))["groups"][0]
    await outside.until_ready(names.dead_queue, 1)
    letter = parsed(await tool.run("dead", "show", "--json", "--reason", "broker:delivery_limit"))["letters"][0]

    assert (group["reason"], group["count"]) == ("broker:delivery_limit", 1)
    assert group["oldest"] is not None
    assert names.work_queue in group["example"]
    assert (letter["order_id"], letter["routing_key"]) == (7, "7")
    assert letter["deaths"][0]["queue"] == names.work_queue


async def test_empty_is_fine_and_missing_is_not(tool: Tool) -> None:
    """Clear words for both."""
    empty = await tool.run("dead", "list", JOURNAL_URL="memory")
    missing = await tool.run("dead", "list", DEAD_LETTER_QUEUE="no-such-queue", JOURNAL_URL="memory")

    assert (empty.code, missing.code) == (0, 1)
    assert "has no dead letters" in empty.stderr
    assert "there is no queue 'no-such-queue'" in missing.stderr


async def test_a_worn_foreign_queue_is_refused(tool: Tool, outside: Outside, queues: Topology) -> None:
    """Beyond its limit the broker would drop what one only wanted to see."""
    theirs = f"{queues.dead_queue}.theirs"
    channel = await outside.channel()
    await channel.queue_declare(theirs, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 50})
    await outside.publish("", theirs, {"id": 1})
    for _ in range(15):
        await outside.take(theirs, hand_back=True)
        await outside.until_ready(theirs, 1)
    refused = await tool.run("dead", "list", DEAD_LETTER_QUEUE=theirs, JOURNAL_URL="memory")
    await outside.until_ready(theirs, 1)
    insisting = await tool.run("dead", "list", "--yes", DEAD_LETTER_QUEUE=theirs, JOURNAL_URL="memory")

    assert (refused.code, insisting.code) == (1, 0)
    assert "handed out 15 times" in refused.stderr
    assert "unknown" in insisting.stdout
