"""Looking into a dead-letter queue and leaving it as it was, for ``dead list`` and ``dead show``."""

import asyncio

import typer

from worker.adapters.amqp.deadletters import WINDOW, Look, Receive
from worker.cli.deadqueue import say, this_tool, worn_text
from worker.config import Settings
from worker.core.errors import QueueMissing
from worker.journalports import Holders
from worker.replay.reaching import at_the_queue


def look_at(
    settings: Settings, queue: str, receive: Receive, *, command: str, first: int = WINDOW, worn_too: bool = False
) -> Look:
    """Show ``receive`` the letters; see ``DeadLetterQueue.look``."""
    return asyncio.run(looked_at(settings, queue, receive, command=command, first=first, worn_too=worn_too))


async def looked_at(
    settings: Settings,
    queue: str,
    receive: Receive,
    *,
    command: str,
    first: int = WINDOW,
    worn_too: bool = False,
    holders: Holders | None = None,
) -> Look:
    """The same where a loop runs."""
    async with at_the_queue(settings, queue, holders=holders) as there:
        try:
            return await there.look(receive, holder=this_tool(command), first=first, worn_too=worn_too)
        except QueueMissing as missing:
            raise QueueMissing(f"{missing}: the worker makes its own when it starts (TOPOLOGY=declare)") from None


def finish(queue: str, look: Look) -> None:
    """What a person should know besides the result. Exit code 1 where the look was refused."""
    if look.worn:
        say(worn_text(queue, look.worn))
        raise typer.Exit(1)
    if not look.there:
        held = f"; {look.consumers} other consumers may hold some" if look.consumers else ""
        say(f"{queue!r} has no dead letters{held}")
        return
    if look.consumers:
        say(f"{look.consumers} other consumers are at {queue!r}: what they hold is not shown")
    say("everything is back in its place; the look cost one delivery count of what was looked at")
