"""Dead letters for tests of the command line: in a real queue, and in the index of a real journal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiormq.abc import DeliveredMessage
from msgspec.structs import replace

from tests.builders import NOW_US, applied_record
from tests.support.broker import Outside
from tests.support.tool import Finished, Tool
from worker.adapters.journal.opening import checked_journal
from worker.core.deadletter import DeadLetter
from worker.core.decode import EventSchema
from worker.core.letterindex import decoded, indexed
from worker.core.model import Version
from worker.ports import wall_us

SCHEMA = EventSchema({}, [])


@dataclass(slots=True)
class Graveyard:
    """A dead-letter queue with its index, and the command to work on it."""

    outside: Outside
    tool: Tool
    queue: str
    journal_url: str

    async def bury(self, letters: Sequence[DeadLetter], *, ours: bool = True) -> None:
        """Put them there. ``ours``: the index knows them."""
        for letter in letters:
            properties = replace(letter.delivery.properties, content_type="application/json")
            await self.outside.publish("", self.queue, letter.delivery.body, properties=properties)
        await self.outside.until_ready(self.queue, len(letters))
        if ours:
            await self.index(letters)

    async def index(self, letters: Sequence[DeadLetter]) -> None:
        """Only in the index."""
        rows = [
            indexed(letter, queue=self.queue, update=decoded(letter, SCHEMA, now_us=NOW_US), now_us=NOW_US)
            for letter in letters
        ]
        async with checked_journal(self.journal_url) as journal:
            await journal.add(rows)

    async def apply(self, order_id: int, *, at_s: float, status: int) -> None:
        """The platform confirmed a status, so many seconds after the letters happened."""
        time_us = NOW_US + round(at_s * 1_000_000)
        async with checked_journal(self.journal_url) as journal:
            values = {"status": (Version(time_us, -1, time_us, "applied"), status)}
            await journal.record(applied_record({order_id: values}, wall_us=wall_us()))

    async def replay(self, *options: str, **settings: str) -> Finished:
        """``order-worker dead replay``, to its end."""
        given = {"JOURNAL_URL": self.journal_url, **settings}
        return await self.tool.run("dead", "replay", *options, stdin=b"", **given)

    async def json(self, *options: str, code: int = 0, **settings: str) -> dict[str, Any]:
        """The same with --json, parsed."""
        done = await self.replay(*options, "--json", **settings)
        assert done.code == code, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    async def status(self, replay_id: str) -> dict[str, Any]:
        """What became of a replay."""
        return await self.json("--status", replay_id)


def sqlite_at(folder: Path) -> str:
    """A journal in a file that the first command makes."""
    return f"sqlite:///{folder / 'journal.db'}"


def header(message: DeliveredMessage, name: str) -> Any:
    """A header of a message that was taken."""
    return (message.header.properties.headers or {}).get(name)
