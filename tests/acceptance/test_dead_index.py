"""``order-worker dead`` with a durable journal: sync, list, export and discard, as people use them on a real broker."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.builders import NOW_US, applied_record, make_update
from tests.support.broker import Outside, unique_topology
from tests.support.tool import Finished, Tool, take_all
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology
from worker.adapters.journal.opening import checked_journal
from worker.adapters.privatebroker import PrivateBroker
from worker.core.failures import Failure, dump_failures
from worker.core.headers import dead_copy
from worker.core.history import HistoryRow
from worker.core.journal import BatchRecord
from worker.core.letterfile import FiledLetter, read_letter
from worker.core.model import Dead, Properties, Reason, Settlement, Version
from worker.ports import wall_us

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("no_leaks")]

HOUR = 3_600_000_000
ORDER = 46_140_000


class Desk:
    """The command with a journal of its own, and a dead-letter queue to use it on."""

    def __init__(self, tool: Tool, outside: Outside, queue: str, journal_url: str) -> None:
        self.tool = tool
        self.outside = outside
        self.queue = queue
        self.journal_url = journal_url

    async def run(self, *arguments: str, code: int = 0, **settings: str) -> Finished:
        """Run it; the broker counts what was handed back a little later: see ``settled``."""
        given = {"JOURNAL_URL": self.journal_url} | settings
        done = await self.tool.run("dead", *arguments, stdin=b"", **given)
        assert done.code == code, done.stderr
        return done

    async def json(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.run(*arguments, "--json")).stdout)
        return found

    async def settled(self, count: int) -> None:
        await self.outside.until_ready(self.queue, count)

    async def bury(self, number: int, reason: Reason, *, hours: int = 0, headers: dict[str, str] | None = None) -> None:
        """A dead letter as the worker makes it, of order ``ORDER + number``; ``headers`` are of the message then."""
        message_id = f"m-{number}"
        update = make_update(ORDER + number, at=NOW_US / 1_000_000, message_id=message_id, headers=headers)
        settlement = Settlement(
            delivery=update.delivery, update=update, disposition=Dead(reason=reason, detail=f"detail {number}")
        )
        copy = dead_copy(settlement, now_us=NOW_US + hours * HOUR, worker="1.0")
        properties = Properties(
            headers=copy.properties.headers, content_type=copy.properties.content_type, message_id=f"copy-{number}"
        )
        await self.outside.publish("", self.queue, copy.body, properties=properties)

    async def bury_some(self) -> None:
        """Two rejected ones, one busy one an hour later, and one that somebody put there."""
        await self.bury(0, Reason.REJECTED)
        await self.bury(1, Reason.BUSY, hours=1)
        await self.bury(2, Reason.REJECTED, hours=25)
        await self.outside.publish("", self.queue, b"\xff", properties=Properties(message_id="copy-3"))
        await self.settled(4)

    def letters(self, name: str) -> list[FiledLetter]:
        """What is in a file in the command's directory."""
        lines = (self.tool.directory / name).read_bytes().splitlines()
        return [read_letter(line, number) for number, line in enumerate(lines, 1)]


@pytest.fixture
def desk(tmp_path: Path, broker: PrivateBroker, outside: Outside, queues: Topology) -> Desk:
    """With SQLite."""
    return Desk(Tool(tmp_path, broker.url, queues), outside, queues.dead_queue, "sqlite:///journal.db")


async def test_sync_brings_the_index_up_to_date_and_leaves_the_queue(desk: Desk) -> None:
    """New ones are added, twice is once, and what somebody took is gone."""
    await desk.bury_some()
    before = await desk.run("list")
    first = await desk.json("sync")
    await desk.settled(4)
    second = await desk.json("sync")
    await desk.settled(4)
    listed = await desk.json("list")
    await desk.outside.take(desk.queue)
    await desk.settled(3)
    third = await desk.json("sync")
    await desk.settled(3)

    assert f"{desk.queue!r} has 4 more than the index knows: `order-worker dead sync`" in before.stderr
    assert (first["found"], first["added"], first["gone"]) == (4, 4, 0)
    assert (second["found"], second["added"], second["gone"]) == (4, 0, 0)
    assert (third["found"], third["added"], third["gone"]) == (3, 0, 1)
    assert listed["unindexed"] == 0
    assert (await desk.json("list"))["seen"] == 3


async def test_list_reads_the_index_and_not_the_queue(desk: Desk) -> None:
    """By reason, order or day, with filters; no message is touched."""
    await desk.bury_some()
    await desk.run("sync")
    await desk.settled(4)
    by_reason, by_order, by_day = [await desk.json("list", "--by", by) for by in ("reason", "order", "day")]
    table = await desk.run("list", "--reason", "rejected")
    # A letter without a time is indexed as of now, which may be any time: a microsecond has no other letter in it.
    late = await desk.json("list", "--since", "2026-11-22T11:00:00Z", "--until", "2026-11-22T11:00:00.000001Z")
    none = await desk.run("list", "--order", "1")
    left = await take_all(desk.outside, desk.queue, 4)

    assert {(group["reason"], group["count"]) for group in by_reason["groups"]} == {
        ("rejected", 2),
        ("busy", 1),
        ("unknown", 1),
    }
    assert by_reason["groups"][0]["newest"] == "2026-11-22T11:00:00.000000Z"
    assert (by_reason["source"], by_reason["messages"], by_reason["seen"]) == ("index", 4, 4)
    assert {(group["order"], group["count"]) for group in by_order["groups"]} == {
        *((ORDER + number, 1) for number in range(3)),
        (None, 1),
    }
    assert {"2026-11-21", "2026-11-22"} <= {group["day"] for group in by_day["groups"]}
    assert re.search(r"rejected\W+2\W+2026-11-21T10:00:00.000000Z\W+2026-11-22T11:00:00.000000Z", table.stdout)
    assert [group["reason"] for group in late["groups"]] == ["rejected"]
    assert (none.stdout, "none of the 4 dead letters matches" in none.stderr) == ("", True)
    assert {(message.header.properties.headers or {})["x-delivery-count"] for message in left} == {1}


async def test_list_does_not_need_the_broker(desk: Desk) -> None:
    """It says that it did not compare."""
    await desk.bury_some()
    await desk.run("sync")
    listed = await desk.run("list", "--json", AMQP_URL="amqp://guest:guest@127.0.0.1:1/")

    assert json.loads(listed.stdout)["seen"] == 4
    assert json.loads(listed.stdout)["messages"] is None
    assert "not compared with the queue" in listed.stderr


@pytest.mark.parametrize("option", [("--since", "yesterday"), ("--until", "2026-11-22"), ("--by", "queue")])
async def test_what_cannot_be_meant_is_a_usage_error(desk: Desk, option: tuple[str, str]) -> None:
    """Exit code 2, and what to write instead."""
    await desk.run("list", *option, code=2)


async def test_show_tells_what_the_journal_knows(desk: Desk) -> None:
    """What became of the message before, what its order has now, and so what a replay would do.

    The journal may also be away.
    """
    failures = dump_failures([Failure(reason="outcome-unknown", failed_at="2026-11-20T10:00:00.000000Z")])
    await desk.bury(1, Reason.BUSY, headers={"ow-failures": failures})
    await desk.settled(1)
    row = HistoryRow(at_us=NOW_US, disposition="retry", reason="busy", order_id=ORDER + 1, message_id="m-1")
    others = HistoryRow(at_us=NOW_US, disposition="ack", reason="applied", order_id=ORDER + 1, message_id="m-9")
    async with checked_journal(f"sqlite:///{desk.tool.directory / 'journal.db'}") as journal:
        await journal.record(BatchRecord(wall_us=NOW_US, history=[row, others]))
        values = {"status": (Version(NOW_US + HOUR, -1, NOW_US, "m-9"), 8)}
        await journal.record(applied_record({ORDER + 1: values}, wall_us=wall_us()))
    (letter,) = (await desk.json("show"))["letters"]
    await desk.settled(1)
    for_people = await desk.run("show")
    await desk.settled(1)
    without = await desk.run("show", JOURNAL_URL="sqlite:///no/such/folder/journal.db")

    assert [(event["outcome"], event["reason"]) for event in letter["history"]] == [("retry", "busy")]
    assert letter["known"] == {"status": {"value": 8, "occurred_at": "2026-11-21T11:00:00.000000Z"}}
    assert letter["replay"] == {"would": "superseded", "detail": "status is 8 since 2026-11-21T11:00:00.000000Z"}
    assert [failure["reason"] for failure in letter["failures"]] == ["outcome-unknown"]
    assert '  known: {"status": {"value": 8' in for_people.stdout
    assert "without what the journal knows" in without.stderr
    assert "busy  order" in without.stdout


async def test_an_export_has_everything_and_leaves_the_queue(desk: Desk) -> None:
    """To a file or to standard output; an older file is not replaced by accident."""
    await desk.bury_some()
    first = await desk.run("export", "all.ndjson")
    await desk.settled(4)
    refused = await desk.run("export", "all.ndjson", code=2)
    some = await desk.run("export", "-", "--reason", "rejected", "--until", "2026-11-22T00:00:00Z")
    await desk.settled(4)
    forced = await desk.run("export", "all.ndjson", "--force", "--order", str(ORDER + 1))
    await desk.settled(4)
    bodies = [message.body for message in await take_all(desk.outside, desk.queue, 4)]

    assert "4 of 4 dead letters exported" in first.stderr
    assert "is there already" in refused.stderr
    assert [read_letter(line.encode(), 1).copy_id for line in some.stdout.splitlines()] == ["copy-0"]
    assert "1 of 4" in forced.stderr
    assert [(letter.copy_id, letter.body) for letter in desk.letters("all.ndjson")] == [("copy-1", bodies[1])]


async def test_discard_plans_first_and_keeps_what_it_removes(desk: Desk) -> None:
    """Without --yes nothing happens; with it the letters are in a file, the history and the index."""
    await desk.bury_some()
    await desk.run("sync")
    await desk.settled(4)
    plan = await desk.run("discard", "--reason", "rejected", "--since", "2026-11-01T00:00:00Z")
    await desk.settled(4)
    command = plan.stdout.splitlines()[-1].partition("order-worker dead ")[2].split()
    done = await desk.run(*command)
    await desk.settled(2)
    (kept,) = desk.tool.directory.glob("order-worker-discarded-*.ndjson")
    told = await desk.tool.run("order", str(ORDER + 2), "--json", JOURNAL_URL=desk.journal_url)
    again = await desk.run("discard", "--reason", "rejected", "--yes", "--to-file", "again.ndjson")
    await desk.settled(2)

    assert plan.stdout.startswith(f"2 dead letters of {desk.queue} would be discarded")
    assert f"2 of 4 dead letters discarded; they are in {kept.name}" in done.stdout
    assert [letter.copy_id for letter in desk.letters(kept.name)] == ["copy-0", "copy-2"]
    event = json.loads(told.stdout)["events"][-1]
    assert (event["outcome"], event["reason"], event["fields"]) == ("discarded", "rejected", {"status": 4})
    assert "order-worker dead discard, process" in event["worker"]
    assert again.stdout == "0 of 2 dead letters discarded\n"
    assert not (desk.tool.directory / "again.ndjson").exists()
    left = {group["reason"]: group["count"] for group in (await desk.json("list"))["groups"]}
    assert left == {"busy": 1, "unknown": 1}


async def test_discarding_that_is_killed_loses_nothing(desk: Desk) -> None:
    """After kill -9 every letter is in the queue or in the file; the rest is discarded the next time."""
    count = 3000
    for number in range(count):
        await desk.bury(number, Reason.REJECTED)
    await desk.settled(count)
    file = desk.tool.directory / "first.ndjson"
    async with desk.tool.started(
        "dead", "discard", "--yes", "--to-file", file.name, JOURNAL_URL=desk.journal_url
    ) as process:
        async with asyncio.timeout(30):
            while not file.exists() or file.stat().st_size < 700_000:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.005)
        process.kill()
        await process.wait()
    whole = [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    first = {read_letter(line, 1).copy_id for line in whole}
    await desk.run("discard", "--yes", "--to-file", "second.ndjson")
    await desk.settled(0)
    second = {letter.copy_id for letter in desk.letters("second.ndjson")}

    assert first | second == {f"copy-{number}" for number in range(count)}
    assert len(second) < count


async def test_the_brokers_own_dead_letters_are_indexed_with_their_events(
    tmp_path: Path, broker: PrivateBroker, outside: Outside
) -> None:
    """Over the delivery limit, expired, or too many: the broker's reason, and a body that a replay can judge."""
    names = unique_topology(delivery_limit=1)
    await declare(outside.connection, names)
    channel = await outside.channel()
    to_dead = {"x-dead-letter-exchange": names.dead_queue}
    await channel.queue_declare(f"{names.dead_queue}.short", arguments={**to_dead, "x-message-ttl": 1})
    await channel.queue_declare(f"{names.dead_queue}.full", arguments={**to_dead, "x-max-length": 1})
    await outside.publish(names.exchanges[0].name, "7", {"id": 7, "status": 4})
    for _ in range(2):
        await outside.take(names.work_queue, hand_back=True)
    await outside.publish("", f"{names.dead_queue}.short", {"id": 8, "status": 4})
    await outside.publish("", f"{names.dead_queue}.full", {"id": 9, "status": 4}, {"id": 10, "status": 4})
    await outside.until_ready(names.dead_queue, 3)
    desk = Desk(Tool(tmp_path, broker.url, names), outside, names.dead_queue, "sqlite:///journal.db")
    await desk.run("sync")
    await desk.settled(3)
    reasons, orders = await desk.json("list"), await desk.json("list", "--by", "order")
    await desk.run("discard", "--reason", "broker:maxlen", "--yes", "--to-file", "full.ndjson")
    await desk.settled(2)

    assert {group["reason"] for group in reasons["groups"]} == {
        "broker:delivery_limit",
        "broker:expired",
        "broker:maxlen",
    }
    assert {group["order"] for group in orders["groups"]} == {7, 8, 9}
    assert [json.loads(letter.body)["id"] for letter in desk.letters("full.ndjson")] == [9]


async def test_a_foreign_queue_is_named(desk: Desk) -> None:
    """--queue: its letters are indexed apart from ours."""
    theirs = f"{desk.queue}.theirs"
    channel = await desk.outside.channel()
    await channel.queue_declare(theirs, durable=True)
    await desk.outside.publish("", theirs, {"id": 1, "status": 4})
    await desk.outside.until_ready(theirs, 1)

    assert (await desk.json("sync", "--queue", theirs))["added"] == 1
    assert (await desk.json("list", "--queue", theirs))["seen"] == 1
    assert (await desk.json("list"))["seen"] == 0


async def test_a_queue_that_somebody_holds_is_refused_by_name(desk: Desk) -> None:
    """Who, and since when."""
    await desk.bury_some()
    await desk.run("sync")
    assert desk.outside.connection.transport is not None
    channel = await desk.outside.connection.transport.connection.channel()
    await channel.queue_declare(f"{desk.queue}.lock", exclusive=True)
    refused = await desk.run("export", "-", code=1)
    await channel.queue_delete(f"{desk.queue}.lock")
    await channel.close()

    assert re.search(r"is taken by .*order-worker dead sync, process \d+ \(since 20", refused.stderr)


async def test_a_worn_foreign_queue_is_not_taken(desk: Desk) -> None:
    """Beyond its limit the broker would drop what one only wanted to export; nothing is written then."""
    theirs = f"{desk.queue}.theirs"
    channel = await desk.outside.channel()
    await channel.queue_declare(theirs, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 50})
    await desk.outside.publish("", theirs, {"id": 1, "status": 4})
    for _ in range(15):
        await desk.outside.take(theirs, hand_back=True)
        await desk.outside.until_ready(theirs, 1)
    refused = await desk.run("export", "letters.ndjson", "--queue", theirs, code=1)
    await desk.outside.until_ready(theirs, 1)
    await desk.run("export", "letters.ndjson", "--queue", theirs, "--yes")

    assert "handed out 15 times" in refused.stderr
    assert len(desk.letters("letters.ndjson")) == 1


@pytest.mark.parametrize("command", [("sync",), ("discard", "--yes")])
async def test_without_a_durable_journal_there_is_no_index(desk: Desk, command: tuple[str, ...]) -> None:
    """The message says what to set."""
    refused = await desk.run(*command, code=2, JOURNAL_URL="memory")

    assert "ORDER_WORKER_JOURNAL_URL" in refused.stderr


@pytest.mark.postgres
async def test_the_same_with_postgresql(
    tmp_path: Path, broker: PrivateBroker, outside: Outside, queues: Topology, postgres_url: str
) -> None:
    """Sync, list, discard."""
    desk = Desk(Tool(tmp_path, broker.url, queues), outside, queues.dead_queue, postgres_url)
    await desk.bury_some()
    synced = await desk.json("sync")
    await desk.settled(4)
    days = await desk.json("list", "--by", "day", "--until", "2026-11-22T00:00:00Z")
    discarded = await desk.json("discard", "--order", str(ORDER + 1), "--yes")
    await desk.settled(3)

    assert (synced["added"], [(group["day"], group["count"]) for group in days["groups"]]) == (4, [("2026-11-21", 2)])
    assert (discarded["discarded"], desk.letters(discarded["file"])[0].copy_id) == (1, "copy-1")
    assert (await desk.json("list"))["seen"] == 3
