"""``order-worker dead replay`` as people run it: a real queue, a real journal, and copies that arrive."""

import asyncio
import base64
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import DEADLINE_S, Outside
from tests.support.graveyard import Graveyard, header, sqlite_at
from tests.support.replaystage import dead_letter, invalid_letter
from tests.support.tool import Tool, finished, take_all
from worker.adapters.amqp.topology import Topology
from worker.adapters.journal.opening import checked_journal
from worker.adapters.privatebroker import PrivateBroker
from worker.core.model import Reason
from worker.core.replayoptions import Options

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A durable journal of each kind."""
    return sqlite_at(tmp_path) if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def yard(tmp_path: Path, broker: PrivateBroker, queues: Topology, outside: Outside) -> Graveyard:
    """An empty queue with an empty index."""
    tool = Tool(tmp_path, broker.url, queues)
    return Graveyard(outside=outside, tool=tool, queue=queues.dead_queue, journal_url=sqlite_at(tmp_path))


async def test_a_plan_moves_nothing_and_says_what_it_would_do(
    yard: Graveyard, outside: Outside, queues: Topology, any_url: str
) -> None:
    """Counts by reason, what supersedes, and the command; then that command does it."""
    yard.journal_url = any_url
    letters = [*(dead_letter(order) for order in (9001, 9002, 9003)), invalid_letter(9004)]
    await yard.bury(letters)
    await yard.apply(9003, at_s=5, status=8)
    plan = await yard.json()
    await outside.until_ready(queues.dead_queue, 4)

    assert (plan["matched"], plan["apply"], plan["superseded"], plan["returns"]) == (4, 2, 1, 1)
    assert {(cell["reason"], cell["kind"], cell["count"]) for cell in plan["by_reason"]} == {
        ("rejected", "apply", 2), ("rejected", "superseded", 1), ("invalid-event", "returns", 1),
    }  # fmt: skip
    assert "status is 8 since 2026-11-21T10:00:05.000000Z" in [cell["example"] for cell in plan["by_reason"]]
    command = plan["execute"].split()
    assert command[:3] == ["order-worker", "dead", "replay"]
    done = await yard.replay(*command[3:])
    copies = await take_all(outside, queues.work_queue, 2)

    assert done.code == 0, done.stderr
    assert "2 moved, 1 superseded, 1 left" in done.stdout
    assert {(copy.routing_key, header(copy, "ow-replay-id"), header(copy, "ow-replay-place")) for copy in copies} == {
        ("9001", plan["replay_id"], 0), ("9002", plan["replay_id"], 1),
    }  # fmt: skip
    assert {copy.header.properties.message_id for copy in copies}.isdisjoint({"copy-9001-0", "copy-9002-0"})
    assert [message.body for message in await take_all(outside, queues.dead_queue, 1)] == [b'{"id":0}']
    status = await yard.status(plan["replay_id"])
    assert status["state"] == "done"
    assert [(told["order_id"], told["state"]) for told in status["messages"]] == [
        (9001, "moved"), (9002, "moved"), (9003, "superseded"), (9004, "left"),
    ]  # fmt: skip
    assert status["messages"][2]["outcome"]["reason"] == "superseded"
    again = await yard.replay("--resume", plan["replay_id"])
    assert (again.code, "is done already" in again.stderr) == (2, True)


async def test_only_the_planned_set_is_moved(yard: Graveyard, outside: Outside, queues: Topology) -> None:
    """Selected by reason and order; what comes in between stays."""
    letters = [dead_letter(1), dead_letter(2), dead_letter(3, reason=Reason.BUSY)]
    await yard.bury(letters)
    plan = await yard.json("--reason", "rejected", "--order", "1", "--order", "3", "--since", "2026-01-01T00:00:00Z")
    late = dead_letter(1, at_s=3, number=1)
    await outside.publish("", queues.dead_queue, late.delivery.body, properties=late.delivery.properties)
    await yard.index([late])
    done = await yard.json("--plan", plan["replay_id"], "--yes")
    copies = await take_all(outside, queues.work_queue, 1)

    assert done["states"]["moved"] == 1
    assert [copy.routing_key for copy in copies] == ["1"]
    await outside.until_ready(queues.dead_queue, 3)


async def killed(yard: Graveyard, outside: Outside, queues: Topology, how: signal.Signals) -> tuple[int, str, str]:
    """Begin to replay 300 letters, 100 a second, and end that in the middle; its code, its id and what it said."""
    await yard.bury([dead_letter(order) for order in range(1, 301)])
    plan = await yard.json()
    arguments = ("dead", "replay", "--plan", plan["replay_id"], "--yes", "--rate", "100/s")
    async with yard.tool.started(*arguments, JOURNAL_URL=yard.journal_url) as process:
        async with asyncio.timeout(DEADLINE_S):
            while await outside.ready(queues.work_queue) < 40:  # noqa: ASYNC110 - only the broker knows
                await asyncio.sleep(0.02)
        process.send_signal(how)
        done = await finished(process)
    return done.code, str(plan["replay_id"]), done.stderr


async def test_killed_in_the_middle_it_is_resumed_and_nothing_is_lost(
    yard: Graveyard, outside: Outside, queues: Topology
) -> None:
    """kill -9: everything is in one of the two queues; the resume moves the rest, a repeat is the same event."""
    code, replay_id, _ = await killed(yard, outside, queues, signal.SIGKILL)
    status = await yard.status(replay_id)
    resumed = await yard.json("--resume", replay_id)
    arrived = await outside.ready(queues.work_queue)
    copies = await take_all(outside, queues.work_queue, max(300, arrived))

    assert code == -signal.SIGKILL
    assert status["state"] == "running"
    assert 0 < status["states"]["moved"] < 300
    assert resumed["states"]["moved"] == 300
    assert {header(copy, "ow-message-id") for copy in copies} == {f"m-{order}-0" for order in range(1, 301)}
    assert len(copies) <= 300 + 100  # at most what was under way
    await outside.until_ready(queues.dead_queue, 0)
    async with checked_journal(yard.journal_url) as journal:
        kept = await journal.replay(replay_id)
    assert kept is not None
    assert Options.from_json(kept.options).rate is None, "the rate was for the first run only, as --help says"


async def test_ctrl_c_stops_in_good_order(yard: Graveyard, outside: Outside, queues: Topology) -> None:
    """What is under way is finished, so nothing is repeated; how to go on is said."""
    code, replay_id, said = await killed(yard, outside, queues, signal.SIGINT)
    status = await yard.status(replay_id)
    moved = status["states"]["moved"]

    assert code == 1
    assert f"order-worker dead replay --resume {replay_id}" in said
    assert status["state"] == "stopped"
    assert 0 < moved < 300
    await outside.until_ready(queues.dead_queue, 300 - moved)
    resumed = await yard.json("--resume", replay_id)
    assert resumed["states"]["moved"] == 300
    assert len(await take_all(outside, queues.work_queue, 300)) == 300


async def test_set_changes_the_event_and_is_checked_before_anything_moves(
    yard: Graveyard, outside: Outside, queues: Topology
) -> None:
    """The edit and its author are kept with the replay."""
    await yard.bury([invalid_letter(7, b'{"id":7,"status":"Dispatched"}'), invalid_letter(8, b"[]"), dead_letter(9)])
    refused = await yard.json("--set", "status=8", "--yes", code=1)
    await outside.until_ready(queues.dead_queue, 3)
    done = await yard.json("--set", "status=8", "--yes", "--message-id", "copy-7-invalid", "--order", "9", code=0)
    only = await yard.json("--set", "status=8", "--yes", "--message-id", "copy-7-invalid", code=0)
    [copy] = await take_all(outside, queues.work_queue, 1)

    assert refused["ended"] == "refused"
    assert len(refused["problems"]) == 1
    assert refused["problems"][0].startswith("copy-8-invalid: ")
    assert done["messages_planned"] == 0
    assert only["states"]["moved"] == 1
    assert json.loads(copy.body) == {"id": 7, "status": 8}
    status = await yard.status(only["replay_id"])
    assert status["options"]["edits"] == ["status=8"]
    assert "@" in status["author"]


async def test_a_second_terminal_is_told_who_holds_the_queue(
    yard: Graveyard, outside: Outside, queues: Topology
) -> None:
    """One at a time, and by name."""
    await yard.bury([dead_letter(order) for order in range(1, 51)])
    arguments = ("dead", "replay", "--yes", "--rate", "2/s")
    async with yard.tool.started(*arguments, JOURNAL_URL=yard.journal_url) as process:
        async with asyncio.timeout(DEADLINE_S):
            while not await outside.ready(queues.work_queue):  # noqa: ASYNC110 - only the broker knows
                await asyncio.sleep(0.02)
        second = await yard.replay("--yes")
        process.send_signal(signal.SIGINT)
        first = await finished(process)

    assert second.code == 1
    assert re.search(rf"is taken by .*dead replay, process {process.pid} \(since ", second.stderr)
    assert first.code == 1


@pytest.mark.parametrize(
    ("options", "settings", "says"),
    [
        ((), {"JOURNAL_URL": "memory"}, "sqlite:///FILE or postgresql"),
        (("--resume", "r-none"), {}, "no replay 'r-none'"),
        (("--resume", "r-none", "--order", "7"), {}, "no selection"),
        (("--plan", "r-none", "--status", "r-none"), {}, "no selection"),
        (("--set", "id=7"), {}, "id cannot be set"),
        (("--rate", "quick"), {}, "--rate takes"),
        (("--since", "yesterday"), {}, "is no time"),
    ],
)
async def test_what_cannot_be_meant_is_usage(
    yard: Graveyard, options: tuple[str, ...], settings: dict[str, str], says: str
) -> None:
    """Exit code 2, with what to do."""
    done = await yard.replay(*options, **settings)

    assert (done.code, done.stdout) == (2, "")
    assert says in done.stderr


async def test_no_match_is_said(yard: Graveyard) -> None:
    """With where letters may be that the index does not know."""
    done = await yard.replay()

    assert done.code == 0
    assert "order-worker dead sync" in done.stdout


async def test_people_see_a_table_and_the_command(yard: Graveyard) -> None:
    """The same numbers as in JSON."""
    await yard.bury([dead_letter(1), invalid_letter(2)])
    done = await yard.replay()

    assert done.code == 0
    assert "2 dead letters match: 1 would apply, 1 would come straight back" in done.stdout
    assert re.search(r"invalid-event\W+1\W+would come straight back\W+invalid-event: id: wrong", done.stdout)
    assert re.search(r"order-worker dead replay --plan r-\d{8}-\d{6}-\w{4} --yes", done.stdout)


async def test_letters_of_a_foreign_queue_go_where_they_came_from(
    yard: Graveyard, outside: Outside, names: Topology
) -> None:
    """The broker says where they were published to; and they can be sent elsewhere."""
    channel = await outside.channel()
    theirs, source = f"{names.dead_queue}.theirs", f"{names.dead_queue}.source"
    await channel.queue_declare(theirs, durable=True, arguments={"x-queue-type": "quorum"})
    dead_to = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": theirs}
    limits: dict[str, Any] = {"x-queue-type": "quorum", "x-max-length": 1, **dead_to}
    await channel.queue_declare(source, durable=True, arguments=limits)
    await outside.publish("", source, {"id": 7, "status": 4}, {"id": 8, "status": 4})
    await outside.until_ready(theirs, 1)
    synced = await yard.tool.run("dead", "sync", "--queue", theirs, JOURNAL_URL=yard.journal_url)
    plan = await yard.json("--queue", theirs)
    done = await yard.json("--plan", plan["replay_id"], "--yes")
    elsewhere = await yard.json("--queue", theirs, "--exchange", "", "--routing-key", names.work_queue, "--yes")

    assert synced.code == 0, synced.stderr
    assert (plan["matched"], plan["apply"]) == (1, 1)
    assert done["states"]["moved"] == 1
    assert elsewhere["messages_planned"] == 0  # the index knows nothing new of it
    # The queue holds one: the copy pushes the other one out, which is dead now.
    await outside.until_ready(theirs, 1)


async def test_letters_are_written_edited_elsewhere_and_brought_back(
    yard: Graveyard, outside: Outside, queues: Topology, tmp_path: Path
) -> None:
    """--to-file leaves the queue as it was; --from-file takes the file's word, as long as it is the same file."""
    await yard.bury([dead_letter(1), dead_letter(2), dead_letter(3)])
    file = tmp_path / "letters.ndjson"
    written = await yard.replay("--order", "1", "--order", "2", "--to-file", str(file))
    await outside.until_ready(queues.dead_queue, 3)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[1]["event"]["status"] = 8
    file.write_text("\n".join(map(json.dumps, lines)))
    plan = await yard.json("--from-file", str(file))
    whole = file.read_bytes()
    file.write_bytes(whole + b"\n")
    changed = await yard.replay("--plan", plan["replay_id"], "--yes")
    file.write_bytes(whole)
    done = await yard.json("--plan", plan["replay_id"], "--yes")
    copies = await take_all(outside, queues.work_queue, 2)

    assert written.code == 0, written.stderr
    assert (plan["matched"], plan["apply"]) == (2, 2)
    assert (changed.code, "was changed since" in changed.stderr) == (2, True)
    assert done["states"]["moved"] == 2
    assert {copy.routing_key: json.loads(copy.body)["status"] for copy in copies} == {"1": 4, "2": 8}
    await outside.until_ready(queues.dead_queue, 1)
    refused = await yard.replay("--from-file", str(file), "--set", "status=8")
    assert refused.code == 2


async def test_a_very_large_letter_goes_through_the_file(
    yard: Graveyard, outside: Outside, queues: Topology, tmp_path: Path
) -> None:
    """Written as it is, taken back as it is, and replayed once somebody cut it down to an event."""
    body = b'{"id":2,"status":4,"event_id":"' + b"x" * 5 * 1024 * 1024 + b'"}'
    await yard.bury([dead_letter(1), invalid_letter(2, body)])
    file = tmp_path / "letters.ndjson"
    written = await yard.replay("--to-file", str(file))
    planned = await yard.json("--from-file", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    large = next(line for line in lines if line["copy_id"] == "copy-2-invalid")

    assert written.code == 0, written.stderr
    assert base64.b64decode(large.pop("body_base64")) == body
    assert (planned["matched"], planned["apply"]) == (2, 1)
    large["event"] = {"id": 2, "status": 4}
    file.write_text("\n".join(map(json.dumps, lines)))
    plan = await yard.json("--from-file", str(file))
    await yard.json("--plan", plan["replay_id"], "--yes")
    copies = await take_all(outside, queues.work_queue, 2)
    assert sorted(json.loads(copy.body)["id"] for copy in copies) == [1, 2]
    await outside.until_ready(queues.dead_queue, 0)
