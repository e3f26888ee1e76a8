"""The admin interface of a running worker: why it is not ready, pause and resume by hand, and the storm guard."""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.proxy import TcpProxy
from tests.support.tool import Finished, finished
from tests.support.workerprocess import PREFIX, WorkerProcess
from tests.support.world import World, stamped
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

TOKEN = "t0ken-of-the-admin"


@pytest.fixture
async def world(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[World]:
    """A world with a stand-in platform that has all its defaults."""
    async with World(broker, tmp_path) as made:
        yield made


class Admin:
    """The admin interface of one worker, as a person or an orchestrator uses it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port = free_port()
        self.settings = {"ADMIN_PORT": str(self.port)}

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else {}

    async def until_ready_says(self, condition: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        """Ask /readyz until the answer is as wanted; the test's own time limit ends that."""
        while True:
            status, answer = await self.get("/readyz")
            assert (status == 200) == answer["ready"]
            if condition(answer):
                return answer

    async def command(self, *arguments: str, **settings: str) -> Finished:
        """Run ``order-worker`` against it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", *arguments),
            env=inherited | {f"{PREFIX}{name}": value for name, value in (self.settings | settings).items()},
            cwd=self.world.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return await finished(process)


async def test_pause_and_resume_by_command(world: World) -> None:
    """The broker shows no consumer while it is paused; what came meanwhile is applied after the resume."""
    admin = Admin(world)
    worker = await world.start(**admin.settings)
    ready = await admin.until_ready_says(lambda answer: answer["ready"])
    paused = await admin.command("pause", "--reason", "stock-taking")
    await world.until_consumers(0)
    _, told = await admin.get("/readyz")
    await world.publish([stamped(1, 4)])
    resumed = await admin.command("resume", "--json")
    await world.until_applied({1: 4})
    again = await admin.command("resume")
    _, state = await admin.get("/state")

    assert ready["role"] == "standby_or_idle"
    assert (paused.code, resumed.code, again.code) == (0, 0, 1)
    assert "order-worker resume" in paused.stdout
    assert (told["ready"], told["reason"]) == (False, "manual")
    assert re.fullmatch(r"stock-taking \(paused by \S+ since 20\S+\)", told["detail"])
    assert json.loads(resumed.stdout) == {"resumed": True}
    assert "not paused by hand" in again.stdout
    assert (state["mode"], state["consuming"], state["generation"], state["role"]) == ("running", True, 2, "active")
    assert state["token_age_s"] >= 0
    assert worker.heard("worker.paused", reason="manual", detail="stock-taking")
    assert await worker.terminate() == 0
    assert (world.dead, await world.leftover()) == ([], 0)


async def test_a_pause_holds_for_every_worker_of_the_queue_and_for_those_started_later(world: World) -> None:
    """Two processes on one SQLite file, a third one in the place of the first: none consumes until one is resumed."""
    one, two = Admin(world), Admin(world)
    world.settings["JOURNAL_URL"] = "sqlite:///journal.db"
    first, second = await world.start(**one.settings), await world.start(**two.settings)
    await one.command("pause", "--reason", "stock-taking")
    told = await two.until_ready_says(lambda answer: answer.get("reason") == "manual")
    await world.until_consumers(0)
    assert await first.terminate() == 0
    third = await world.launch(**one.settings)
    await third.until_heard("worker.paused", reason="manual", detail=told["detail"])
    await world.publish([stamped(1, 4)])
    resumed = await two.command("resume")
    await world.until_applied({1: 4})
    await third.until_heard("worker.resumed")
    await third.until_heard("broker.consuming", generation=1)

    assert "stock-taking" in told["detail"]
    assert resumed.code == 0
    assert [await each.terminate() for each in (second, third)] == [0, 0]
    assert (world.dead, await world.leftover()) == ([], 0)


async def test_a_storm_waits_for_a_person(world: World) -> None:
    """30 invalid events: fewer than 20 dead letters, then a pause; the resume lets the rest go."""
    admin = Admin(world)
    worker = await world.start(**admin.settings)
    for _ in range(30):
        await world.publish_raw(b"not json")
    await worker.until_heard("storm.paused")
    await world.until_consumers(0)
    status, told = await admin.get("/readyz")
    dead = len(world.dead)

    assert dead < 20
    assert (status, told["reason"]) == (503, "storm")
    assert "dead letters" in told["detail"]
    assert (await admin.get("/resume", method="POST"))[0] == 200
    await world.until_dead(30)
    await world.publish([stamped(1, 4)])
    await world.until_applied({1: 4})
    assert await worker.terminate() == 0
    assert (len(world.dead), await world.leftover()) == (30, 0)


async def test_readyz_names_the_outage_and_its_end(world: World) -> None:
    """The platform refuses connections, then answers again."""
    admin = Admin(world)
    worker = await world.start(**admin.settings)
    await admin.until_ready_says(lambda answer: answer["ready"])
    await world.simulator.refuse()
    await world.publish([stamped(1, 4)])
    told = await admin.until_ready_says(lambda answer: answer.get("reason") == "unavailable")
    alive, _ = await admin.get("/healthz")
    await world.simulator.clear_faults()
    ready = await admin.until_ready_says(lambda answer: answer["ready"])

    assert told["detail"]
    assert alive == 200
    assert ready["role"] == "active"
    assert await worker.terminate() == 0


async def test_readyz_answers_before_the_broker_does(world: World) -> None:
    """A worker that waits for its broker is alive and says why it is not ready."""
    admin = Admin(world)
    async with TcpProxy(world.broker.port) as proxy:
        await proxy.refuse()
        worker = await world.launch(AMQP_URL=proxy.url(), **admin.settings)
        await worker.until_heard("broker.unreachable")

        assert (await admin.get("/readyz"))[1]["reason"] == "not-connected"
        assert (await admin.get("/healthz"))[0] == 200
        assert await worker.terminate() == 0


async def test_a_standby_is_ready(world: World) -> None:
    """The broker gives its messages to the other one, which is no fault."""
    first, second = Admin(world), Admin(world)
    await world.start(**first.settings)
    await world.start(**second.settings)
    await world.publish([stamped(1, 4)])
    await world.until_applied({1: 4})

    assert (await first.get("/readyz"))[1] == {"ready": True, "role": "active"}
    assert (await second.get("/readyz"))[1] == {"ready": True, "role": "standby_or_idle"}


async def test_the_token_guards_all_but_the_probes(world: World) -> None:
    """Without it nobody pauses or looks; the token is in no log."""
    admin = Admin(world)
    worker = await world.start(ADMIN_TOKEN=TOKEN, **admin.settings)
    allowed = {"Authorization": f"Bearer {TOKEN}"}
    bare = [(await admin.get("/state"))[0], (await admin.get("/pause", method="POST"))[0]]
    wrong = await admin.command("pause", ADMIN_TOKEN="something-else")
    right = await admin.command("pause", ADMIN_TOKEN=TOKEN)

    assert bare == [401, 401]
    assert (await admin.get("/state", **allowed))[0] == 200
    assert (await admin.get("/healthz"))[0] == 200
    assert wrong.code == 1
    assert "ORDER_WORKER_ADMIN_TOKEN" in wrong.stderr
    assert right.code == 0
    assert await worker.terminate() == 0
    assert TOKEN not in worker.output + wrong.stderr + right.stdout


async def test_a_port_in_use_ends_with_exit_code_2(world: World, tmp_path: Path) -> None:
    """Named by its variable, before anything is connected."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        worker = await WorkerProcess.start(world.settings | {"ADMIN_PORT": str(taken.getsockname()[1])}, cwd=tmp_path)

        assert await worker.ended() == 2
    assert "ORDER_WORKER_ADMIN_PORT" in worker.output
    assert "another program listens there" in worker.output
    assert not worker.heard("broker.connected")
    assert "Traceback" not in worker.output


async def test_an_open_address_without_a_token_ends_with_exit_code_2(world: World) -> None:
    """Whoever reached it could stop the worker."""
    worker = await world.launch(ADMIN_HOST="0.0.0.0", ADMIN_PORT=str(free_port()))  # noqa: S104 - refused

    assert await worker.ended() == 2
    assert "ORDER_WORKER_ADMIN_HOST, ORDER_WORKER_ADMIN_TOKEN" in worker.output


@pytest.mark.parametrize("command", ["pause", "resume"])
async def test_commands_say_when_no_worker_listens(world: World, command: str) -> None:
    """Exit code 1 and where to look; 2 where the settings name no interface."""
    admin = Admin(world)
    nobody = await admin.command(command)
    off = await admin.command(command, ADMIN_PORT="0")

    assert (nobody.code, off.code) == (1, 2)
    assert "nothing listens there" in nobody.stderr
    assert "ORDER_WORKER_ADMIN_PORT: is 0" in off.stderr
