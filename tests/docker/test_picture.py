"""What docker/compose.yaml starts of ours, started: the same commands, settings, mounts and health checks in the image.

Only addresses differ: they are those of this machine's private broker and database and of free loopback ports, because
there are no containers with names here.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support import generation
from tests.support.compose import FOLDER, required, services
from tests.support.container import ContainerProcess, finished
from tests.support.image import Image
from tests.support.postgres import PrivatePostgres
from tests.support.workerprocess import PREFIX
from worker.adapters.freeports import free_ports
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.postgres, pytest.mark.timeout(900)]

APPLIED = 60
"""Events; the traffic needs a few seconds for them."""
START_S = 60.0


@dataclass
class Picture:
    """The services of ours, by name, as processes. Addresses of compose become those of ``places``.

    ``ports`` are those of the platform, of its control interface and of the worker's admin interface.
    """

    image: Image
    folder: Path
    places: Mapping[str, str]
    ports: tuple[int, int, int]
    services: Mapping[str, dict[str, Any]] = field(default_factory=lambda: services(dict.fromkeys(required(), "given")))
    processes: dict[str, ContainerProcess] = field(default_factory=dict)

    def settings(self, name: str) -> dict[str, str]:
        """Those of the service, names without prefix."""
        given = dict(self.services[name].get("environment", {}))
        settings = {key.removeprefix(PREFIX): self._here(value) for key, value in given.items()}
        return settings | ({"ADMIN_PORT": str(self.ports[2])} if "ADMIN_PORT" in settings else {})

    def arguments(self, name: str) -> list[str]:
        """What it runs."""
        service = self.services[name]
        started = service.get("entrypoint", self.image.config["Entrypoint"])
        given = [] if "entrypoint" in service else service.get("command", self.image.config["Cmd"])
        return [*started, *map(self._here, given)]

    def home(self, name: str) -> Path:
        """Its working folder. Nothing may be needed of it: compose mounts none."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o500)
        return folder

    async def start(self, name: str, *more: str) -> ContainerProcess:
        """Start it, without waiting for it."""
        mounts = [mount.split(":")[:2] for mount in self.services[name].get("volumes", [])]
        script = (FOLDER / mounts[0][0], mounts[0][1]) if mounts else None
        self.processes[name] = await ContainerProcess.run(
            self.image,
            self.settings(name),
            home=self.home(name),
            arguments=[*self.arguments(name), *more],
            script=script,
        )
        return self.processes[name]

    async def health(self, name: str) -> tuple[int, str]:
        """What its health check says."""
        test = [self._here(word) for word in self.services[name]["healthcheck"]["test"][1:]]
        return await self.processes[name].execute(self.image, test, self.settings(name))

    async def end(self) -> None:
        """All of them."""
        for process in self.processes.values():
            await process.kill()

    def _here(self, text: str) -> str:
        for place, here in self.places.items():
            text = text.replace(place, here)
        return text


@pytest.fixture
def own_broker() -> Iterator[PrivateBroker]:
    """A broker where nobody else uses the default names."""
    with PrivateBroker(installation=generation.chosen()) as node:
        yield node


@pytest.fixture
async def picture(
    image: Image, own_broker: PrivateBroker, postgres: PrivatePostgres, tmp_path: Path
) -> AsyncIterator[Picture]:
    """Nothing runs yet but the servers of others."""
    platform, control, admin = free_ports(3)
    found = services(dict.fromkeys(required(), "given"))["worker"]["environment"]
    places = {
        found[f"{PREFIX}AMQP_URL"]: own_broker.url,
        found[f"{PREFIX}JOURNAL_URL"]: postgres.create("picture"),
        "platform:8090": f"127.0.0.1:{platform}",
        "127.0.0.1:8091": f"127.0.0.1:{control}",
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - replaced: tests listen on loopback only
    }
    made = Picture(image, tmp_path, places, (platform, control, admin))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.end)
        yield made


async def applied(picture: Picture, session: aiohttp.ClientSession) -> int:
    """How many events the worker says it has applied."""
    settings = picture.settings("worker")
    url = f"http://127.0.0.1:{settings['ADMIN_PORT']}/state"
    async with session.get(url, headers={"Authorization": f"Bearer {settings['ADMIN_TOKEN']}"}) as answer:
        assert answer.status == 200, await answer.text()
        return int((await answer.json())["counts"].get("applied", 0))


async def test_traffic_reaches_the_platform_through_everything_that_compose_starts(picture: Picture) -> None:
    """Journal, stand-in, worker and traffic, in compose's order; each is well by its own health check."""
    made = finished(
        picture.image, *picture.arguments("journal"), home=picture.home("journal"), **picture.settings("journal")
    )
    assert made.returncode == 0, made.stderr
    platform = await picture.start("platform", f"--port={picture.ports[0]}", f"--sim-port={picture.ports[1]}")
    await platform.until(lambda process: "sim_url" in process.output, deadline_s=START_S)
    assert await picture.health("platform") == (0, "")
    worker = await picture.start("worker")
    await worker.until_heard("worker.ready", deadline_s=START_S)
    assert await picture.health("worker") == (0, "")

    traffic = await picture.start("traffic")
    async with aiohttp.ClientSession() as session, asyncio.timeout(START_S):
        while await applied(picture, session) < APPLIED:
            assert traffic.is_running, traffic.output
            await asyncio.sleep(0.1)  # successes are silent, so the worker is asked
    await traffic.kill()

    assert await worker.terminate() == 0
    assert worker.counts["applied"] >= APPLIED
    assert await platform.terminate() == 0
