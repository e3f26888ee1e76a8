"""``order-worker console``: the bad night in a browser; and tokens for those who may use it."""

import asyncio
import signal
from typing import Annotated

import typer

from worker.cli.config import start
from worker.cli.deadqueue import durable, say
from worker.config import Settings
from worker.console import app
from worker.console.people import Role, new_token


def console(
    *,
    new_token_for: Annotated[
        str | None,
        typer.Option("--new-token", metavar="NAME", help="Make a token for this person and leave."),
    ] = None,
    role: Annotated[Role, typer.Option(help="With --new-token: look only, or change things as well.")] = Role.VIEWER,
) -> None:
    """Serve the console on CONSOLE_HOST and CONSOLE_PORT until SIGTERM or SIGINT.

    On this machine's own address it asks nobody to log in; elsewhere it does not start without CONSOLE_TOKENS_FILE or
    CONSOLE_PROXY_HEADER.
    """
    if new_token_for is not None:
        token, line = new_token(new_token_for, role)
        print(line)
        say(f"the line above belongs into CONSOLE_TOKENS_FILE; hand this token over, it is kept nowhere: {token}")
        return
    settings = start()
    durable(settings)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        await app.run(settings, stop)
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
