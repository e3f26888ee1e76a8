"""docker/healthcheck.py: what the image says about its own health."""

import asyncio
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.image import ROOT
from worker.adapters.freeports import free_port
from worker.config import PREFIX, Settings

SCRIPT = str(ROOT / "docker" / "healthcheck.py")
ANSWERS = {"/healthz": 200, "/readyz": 503}


async def check(*arguments: str, **settings: str) -> tuple[int, str]:
    """Run it with these settings and nothing else in its environment; exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", SCRIPT, *arguments),
        env={f"{PREFIX}{name}": value for name, value in settings.items()},
        stdout=PIPE,
        stderr=STDOUT,
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A program that answers as in ``ANSWERS``."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=ANSWERS.get(request.path, 404), text="so it is")

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    number = free_port()
    await web.TCPSite(runner, "127.0.0.1", number).start()
    yield number
    await runner.cleanup()


async def test_a_worker_that_is_alive_is_well(port: int) -> None:
    """Silently."""
    assert await check(ADMIN_PORT=str(port)) == (0, "")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", ""])  # noqa: S104 - asked, not bound
async def test_it_asks_where_the_worker_listens(port: int, host: str) -> None:
    """One that listens everywhere is asked on loopback."""
    assert await check(ADMIN_HOST=host, ADMIN_PORT=str(port)) == (0, "")


async def test_other_answers_are_told(port: int) -> None:
    """Status and text are what `docker inspect` shows."""
    code, output = await check("/readyz", ADMIN_PORT=str(port))
    assert (code, output) == (1, f"http://127.0.0.1:{port}/readyz: answered 503 so it is\n")


async def test_another_program_can_be_asked(port: int) -> None:
    """By its whole address, whatever the settings are."""
    assert await check(f"http://127.0.0.1:{port}/healthz", ADMIN_PORT="1") == (0, "")


@pytest.mark.parametrize("settings", [{"ADMIN_PORT": "1"}, {"ADMIN_PORT": "nonsense"}, {"ADMIN_PORT": "99999"}])
async def test_nobody_there_is_not_well(settings: dict[str, str]) -> None:
    """Whatever the reason, one line and exit code 1."""
    code, output = await check(**settings)
    assert code == 1
    assert output.count("\n") == 1


async def test_without_admin_interface_there_is_nothing_to_ask() -> None:
    """Port 0 is a choice, not an illness."""
    assert await check(ADMIN_PORT="0") == (0, "")


def test_defaults_are_those_of_the_settings() -> None:
    """It does not import them, to be quick."""
    text = Path(SCRIPT).read_text()
    host, port = (Settings.model_fields[name].default for name in ("admin_host", "admin_port"))
    assert f'DEFAULT_HOST = "{host}"' in text
    assert f'DEFAULT_PORT = "{port}"' in text


def test_it_needs_the_standard_library_alone() -> None:
    """Without any installed package it still runs (and finds nobody)."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT],
        capture_output=True,
        text=True,
        env={f"{PREFIX}ADMIN_PORT": "1"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
