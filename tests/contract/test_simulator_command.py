"""``order-worker simulate`` as a process of its own."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process

import aiohttp
import pytest

PROGRAM = "import typer; from worker.cli.simulate import simulate; typer.run(simulate)"
PORTS = ("--port", "0", "--sim-port", "0")


async def start(*arguments: str) -> Process:
    """Start the command; the caller ends it."""
    return await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, *arguments, stdout=PIPE, stderr=PIPE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_command_prints_its_addresses_and_ends_on_a_signal(number: signal.Signals) -> None:
    """Ready means one JSON line on stdout; a signal ends it with exit code 0 and nothing on stderr."""
    process = await start(*PORTS, "--latency", "0.001:0.002", "--set", "refusal=no_path", "--set", "max_batch=7")
    assert process.stdout is not None
    try:
        addresses = json.loads(await process.stdout.readline())
        async with (
            aiohttp.ClientSession() as session,
            session.get(addresses["sim_url"] + "options") as response,
        ):
            options = await response.json()
    finally:
        process.send_signal(number)
        _, errors = await process.communicate()

    assert list(addresses) == ["oauth_url", "graphql_url", "sim_url"]
    assert (options["latency_s"], options["refusal"], options["max_batch"]) == ([0.001, 0.002], "no_path", 7)
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--batch", "sometimes"), "per_order"),
        (("--latency", "soon"), "MIN:MAX"),
        (("--set", "refusal"), "NAME=JSON"),
        (("--set", "colour=red"), "colour"),
        (("--host", "192.0.2.1"), "cannot listen"),
    ],
)
async def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], part: str) -> None:
    """A wrong option is explained on stderr."""
    process = await start(*PORTS, *arguments)
    _, errors = await process.communicate()

    assert process.returncode == 2
    assert part in " ".join(errors.decode().split())
