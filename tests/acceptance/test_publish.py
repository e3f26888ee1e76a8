"""``order-worker publish`` on a real broker: exact counts, and no event lost or changed by whatever interrupts it."""

import asyncio
import json
import os
import pty
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage

from tests.support.broker import DEADLINE_S, Outside
from tests.support.proxy import TcpProxy
from tests.support.tool import Finished, Tool, finished, take_all
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("no_leaks")]

STATE = "events.publish-state"


@pytest.fixture
def tool(tmp_path: Path, broker: PrivateBroker, queues: Topology) -> Tool:
    """The command, on a declared topology of this test."""
    return Tool(tmp_path, broker.url, queues)


def write(tool: Tool, count: int, *more: str) -> list[str]:
    """A file of ``count`` good events, each one its own status, and these lines."""
    lines = [json.dumps({"id": 1 + number % 7, "status": number}) for number in range(count)]
    (tool.directory / "events").write_text("".join(f"{line}\n" for line in (*lines, *more)))
    return lines


def counts(done: Finished) -> dict[str, int]:
    """The JSON that it printed."""
    found: dict[str, int] = json.loads(done.stdout)
    return found


def bodies(messages: list[DeliveredMessage]) -> dict[str, dict[str, Any]]:
    """The events by message id; asserts that the same id always came with the same bytes."""
    raw: dict[str, bytes] = {}
    for message in messages:
        name = message.header.properties.message_id
        assert name is not None
        assert raw.setdefault(name, message.body) == message.body
    return {name: json.loads(body) for name, body in raw.items()}


def assert_complete(messages: list[DeliveredMessage], count: int) -> None:
    """All events, each under one id, and the order of the lines is the order in time."""
    events = sorted(bodies(messages).values(), key=lambda event: int(event["status"]))
    times = [event["occurred_at"] for event in events]

    assert [event["status"] for event in events] == list(range(count))
    assert times == sorted(set(times))


async def until_stored(outside: Outside, queue: str, count: int) -> None:
    """Wait until the broker has at least so many."""
    async with asyncio.timeout(DEADLINE_S):
        while await outside.ready(queue) < count:  # noqa: ASYNC110 - only the broker knows, so it is polled
            await asyncio.sleep(0.02)


async def test_all_events_arrive_confirmed_stamped_and_in_order(tool: Tool, outside: Outside, queues: Topology) -> None:
    """The count is exact, the properties are those of an event, and nothing is left behind."""
    write(tool, 300, "", '{"id": 9, "status": 300, "occurred_at": "2026-01-01T00:00:00Z"}')
    done = await tool.run("publish", "events")
    messages = await take_all(outside, queues.work_queue, 301)

    assert (done.code, done.stdout) == (0, "301 events confirmed\n")
    assert messages[300].body == b'{"id": 9, "status": 300, "occurred_at": "2026-01-01T00:00:00Z"}'
    assert_complete(messages[:300], 300)
    first = messages[0].header.properties
    assert (messages[0].routing_key, first.content_type, first.delivery_mode) == ("1", "application/json", 2)
    assert first.timestamp is not None
    assert json.loads(messages[0].body)["occurred_at"].startswith(first.timestamp.strftime("%Y-%m-%dT%H:%M:%S."))
    assert [path.name for path in tool.directory.iterdir()] == ["events"]


async def test_a_bad_line_keeps_the_whole_file_back(tool: Tool, outside: Outside, queues: Topology) -> None:
    """Every problem with its line number; the queue stays empty."""
    write(tool, 2, "{", "", '{"id": 1}', "[]")
    done = await tool.run("publish", "events", "--json")

    assert (done.code, counts(done)) == (1, {"confirmed": 0, "lines": 5, "resumed_from": 0, "failed": 3})
    assert re.findall(r"line (\d+): (\w+)", done.stderr) == [("3", "body"), ("5", "body"), ("6", "body")]
    assert await outside.ready(queues.work_queue) == 0


async def test_force_publishes_anything_as_it_is(tool: Tool, outside: Outside, queues: Topology) -> None:
    """Bytes stay bytes: what is bad has to arrive bad."""
    lines = [b"{", b"\xff\xfe", b"[1, 2]", b'{"id": NaN}', b"x" * 70_000]
    (tool.directory / "events").write_bytes(b"\n".join(lines))
    done = await tool.run("publish", "events", "--force")

    assert (done.code, done.stdout) == (0, "5 events confirmed\n")
    assert [message.body for message in await take_all(outside, queues.work_queue, 5)] == lines


async def test_a_stream_ends_at_its_first_bad_line(tool: Tool, outside: Outside, queues: Topology) -> None:
    """What came before it is confirmed, what comes behind it is not sent."""
    done = await tool.run(
        "publish", "-", "--json", stdin=b'{"id":1,"status":0}\n{"id":1,"status":1}\n\noops\n{"id":1,"status":2}\n'
    )

    assert (done.code, counts(done)) == (1, {"confirmed": 2, "lines": 3, "resumed_from": 0, "failed": 1})
    assert "line 4: body: not JSON" in done.stderr
    assert_complete(await take_all(outside, queues.work_queue, 2), 2)


async def test_events_of_a_live_stream_go_out_as_they_come(tool: Tool, outside: Outside, queues: Topology) -> None:
    """Nobody waits for the end of a stream that has none; closing it ends the command."""
    async with tool.started("publish", "-") as process:
        assert process.stdin is not None
        for number in range(3):
            process.stdin.write(b'{"id":1,"status":%d}\n' % number)
            await outside.until_ready(queues.work_queue, number + 1)
        done = await finished(process)

    assert (done.code, done.stdout) == (0, "3 events confirmed\n")
    assert_complete(await take_all(outside, queues.work_queue, 3), 3)


async def test_a_cut_connection_costs_no_event(
    tool: Tool, broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """It goes on by itself with what is open; what came twice has the same id and the same bytes."""
    write(tool, 3000)
    arguments = ("publish", "events", "--rate", "600/s", "--json")
    async with TcpProxy(broker.port) as proxy, tool.started(*arguments, AMQP_URL=proxy.url()) as process:
        for stored in (300, 1200):
            await until_stored(outside, queues.work_queue, stored)
            await proxy.cut()
        done = await finished(process)
    messages = await take_all(outside, queues.work_queue, await outside.ready(queues.work_queue))

    assert (done.code, counts(done)) == (0, {"confirmed": 3000, "lines": 3000, "resumed_from": 0, "failed": 0})
    assert_complete(messages, 3000)
    assert done.stderr.count("broker.connected") == 3
    assert len(messages) <= 3400


async def test_an_operators_close_costs_no_event(tool: Tool, broker: PrivateBroker, queues: Topology) -> None:
    """``close_all_connections`` is what a maintenance does. Ten seconds of events: rabbitmqctl takes some to start."""
    write(tool, 3000)
    async with tool.started("publish", "events", "--rate", "300", "--json") as process:
        watching = await Outside.connect(broker.url)
        await until_stored(watching, queues.work_queue, 100)
        await watching.close()
        await asyncio.to_thread(broker.ctl, "close_all_connections", "maintenance")
        done = await finished(process)
    looking = await Outside.connect(broker.url)
    messages = await take_all(looking, queues.work_queue, await looking.ready(queues.work_queue))
    await looking.close()

    assert (done.code, counts(done)["confirmed"]) == (0, 3000)
    assert done.stderr.count("broker.connected") == 2
    assert_complete(messages, 3000)


async def test_a_killed_command_goes_on_with_the_same_stamps_and_ids(
    tool: Tool, outside: Outside, queues: Topology
) -> None:
    """SIGKILL twice, at moments that nobody chose: the third try completes the same run."""
    write(tool, 2500)
    for stored in (200, 1000):
        async with tool.started("publish", "events", "--rate", "2000") as process:
            await until_stored(outside, queues.work_queue, stored)
            process.kill()
            assert (await finished(process)).code == -signal.SIGKILL
    done = await tool.run("publish", "events", "--json")
    messages = await take_all(outside, queues.work_queue, await outside.ready(queues.work_queue))
    known = counts(done)

    assert (done.code, known["confirmed"], known["failed"]) == (0, 2500, 0)
    assert_complete(messages, 2500)
    # Events are counted at most a second late, so a kill can double what that second published, and no more.
    assert len(messages) < 2 * 2500
    assert not (tool.directory / STATE).exists()


async def test_an_interrupt_saves_and_the_next_run_does_the_rest(
    tool: Tool, outside: Outside, queues: Topology
) -> None:
    """Ctrl-C: exit 130 with the exact count; nothing comes twice."""
    write(tool, 1000)
    async with tool.started("publish", "events", "--rate", "500") as process:
        await until_stored(outside, queues.work_queue, 100)
        process.send_signal(signal.SIGINT)
        stopped = await finished(process)
    stored = await outside.ready(queues.work_queue)
    done = await tool.run("publish", "events", "--json")
    messages = await take_all(outside, queues.work_queue, 1000)

    assert (stopped.code, stopped.stdout) == (130, f"{stored} of 1000 events confirmed\n")
    assert "the same command goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert counts(done) == {"confirmed": 1000, "lines": 1000, "resumed_from": stored, "failed": 0}
    assert_complete(messages, 1000)
    assert await outside.ready(queues.work_queue) == 0


async def test_a_stream_with_a_state_is_resumed_by_feeding_it_again(
    tool: Tool, outside: Outside, queues: Topology
) -> None:
    """The confirmed lines of the stream are skipped."""
    lines = [b'{"id":1,"status":%d}\n' % number for number in range(20)]
    first = await tool.run("publish", "-", "--state", "st", "--json", stdin=b"".join([*lines[:8], b"oops\n"]))
    second = await tool.run("publish", "-", "--state", "st", "--json", stdin=b"".join(lines))

    assert (first.code, counts(first)["confirmed"]) == (1, 8)
    assert (second.code, counts(second)) == (0, {"confirmed": 20, "lines": 20, "resumed_from": 8, "failed": 0})
    assert_complete(await take_all(outside, queues.work_queue, 20), 20)


async def test_restart_publishes_everything_anew(tool: Tool, outside: Outside, queues: Topology) -> None:
    """Under new ids, whatever the state says."""
    write(tool, 3)
    (tool.directory / STATE).write_text("nonsense")
    refused = await tool.run("publish", "events")
    done = await tool.run("publish", "events", "--restart")

    assert (refused.code, done.code) == (2, 0)
    assert "--restart" in refused.stderr
    assert_complete(await take_all(outside, queues.work_queue, 3), 3)


async def test_an_unbound_exchange_is_told(tool: Tool, outside: Outside, queues: Topology) -> None:
    """Nobody would get these events; once a queue is bound the same command goes on."""
    write(tool, 5)
    channel = await outside.channel()
    unbound = f"{queues.exchanges[0].name}.unbound"
    await channel.exchange_declare(unbound, exchange_type="topic", durable=True)
    done = await tool.run("publish", "events", "--json", EXCHANGE=unbound)
    await channel.queue_bind(queues.work_queue, unbound, "#")
    again = await tool.run("publish", "events", "--json", EXCHANGE=unbound)

    assert (done.code, counts(done)) == (1, {"confirmed": 0, "lines": 5, "resumed_from": 0, "failed": 5})
    assert "unroutable" in done.stderr
    assert (again.code, counts(again)["confirmed"]) == (0, 5)


async def test_a_missing_exchange_and_a_wrong_password_exit_2(tool: Tool, broker: PrivateBroker) -> None:
    """A person has to change something: waiting would not help."""
    write(tool, 1)
    missing = await tool.run("publish", "events", EXCHANGE="no-such-exchange")
    refused = await tool.run("publish", "events", AMQP_URL=broker.url.replace("guest:guest", "guest:secret-word"))

    assert (missing.code, refused.code) == (2, 2)
    assert "'no-such-exchange' is missing" in missing.stderr
    assert "check name and password" in refused.stderr
    assert "secret-word" not in refused.stderr


async def test_a_broker_that_stays_away_ends_it_after_the_patience(tool: Tool, broker: PrivateBroker) -> None:
    """Exit 1 with the way to go on; before anything was sent, and in the middle."""
    write(tool, 1000)
    async with TcpProxy(broker.port) as proxy:
        async with tool.started("publish", "events", "--rate", "500", "--patience", "0.5", AMQP_URL=proxy.url()) as it:
            async with asyncio.timeout(DEADLINE_S):
                while not (tool.directory / STATE).exists():  # noqa: ASYNC110 - another process makes it
                    await asyncio.sleep(0.01)
            await proxy.refuse()
            await proxy.cut()
            lost = await finished(it)
        never = await tool.run("publish", "events", "--patience", "0.5", AMQP_URL=proxy.url())

    assert (lost.code, never.code) == (1, 1)
    assert "the same command goes on" in lost.stderr
    assert "no broker within 0.5 s" in never.stderr


async def test_an_interrupt_before_the_broker_answers_is_quiet(tool: Tool) -> None:
    """Ctrl-C while it waits for a broker that is not there: 130, no traceback."""
    write(tool, 1)
    async with TcpProxy(0) as proxy:
        url = proxy.url()
    async with tool.started("publish", "events", AMQP_URL=url) as process:
        assert process.stderr is not None
        async with asyncio.timeout(DEADLINE_S):
            while b"broker.unreachable" not in await process.stderr.readline():
                pass
        process.send_signal(signal.SIGINT)
        done = await finished(process)

    assert done.code == 130
    assert "Traceback" not in done.stderr


async def test_two_at_once_on_one_file_are_refused(tool: Tool, outside: Outside, queues: Topology) -> None:
    """They would publish everything twice."""
    write(tool, 1000)
    async with tool.started("publish", "events", "--rate", "200") as process:
        await until_stored(outside, queues.work_queue, 1)
        second = await tool.run("publish", "events")
        process.send_signal(signal.SIGTERM)
        first = await finished(process)

    assert (first.code, second.code) == (130, 2)
    assert "by another process" in second.stderr


async def test_a_terminal_sees_a_progress_bar(tool: Tool) -> None:
    """And only a terminal: elsewhere it would be noise."""
    write(tool, 50)
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "publish", "events"),
        cwd=tool.directory, env=tool.environment({"TERM": "xterm"}), stdout=asyncio.subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    done = await finished(process)
    shown = await asyncio.to_thread(os.read, ours, 65536)
    os.close(ours)

    assert (done.code, done.stdout) == (0, "50 events confirmed\n")
    assert b"50/50" in shown
