"""The morning after a bad night: what a person does about its dead letters, with nothing but the command line.

morning = Morning(night, night.world.yard(journal_url))
await morning.look()                    # dead list, and the plan for all: they have to say what the books say
await morning.replay(disturb)           # plan, canary, kill -9 in the middle, resume, disturbed again, resume
await morning.clean_up()                # the rest of the reasons, what only a person can decide, what nobody wants
await morning.wind_up()                 # everything is at its end, and each message at exactly one
"""

import asyncio
import json
import re
import signal
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.graveyard import Graveyard
from tests.support.night import DISPATCHED, LONG_S, Night
from tests.support.nightbooks import Ends, Event, Problems
from tests.support.tool import Finished, finished
from worker.core.forecast import Kind
from worker.core.model import Reason

KILLED_AT, DISTURBED_AT = 30, 50
"""Per cent of the letters that are moved by then."""
GENTLE = "250/s"
FREED = 5
_MOVED = re.compile(r"(\d+) %: ")
ANY_END = ("applied", "superseded", "duplicate")
"""Of several values of one order that are all news, the newest may come first."""
Disturb = Callable[[Process], Awaitable[None]]


async def kill(process: Process) -> None:
    """kill -9 of the tool."""
    process.kill()


async def until_moved(process: Process, percent: int) -> str:
    """Wait until the tool tells that so much of its plan is done. AssertionError if it ends before."""
    assert process.stderr is not None
    said = ""
    while line := (await process.stderr.readline()).decode():
        said += line
        if (found := _MOVED.search(line)) is not None and int(found[1]) >= percent:
            return said
    raise AssertionError(f"it ended before {percent} % were moved:\n{said}")


@dataclass(slots=True)
class Morning:
    """One person at one terminal. ``figures`` are for whoever runs the test."""

    night: Night
    yard: Graveyard
    replays: list[str] = field(default_factory=list)
    began: int = 0
    figures: dict[str, object] = field(default_factory=dict)
    ends: Ends = field(default_factory=Ends)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """How many there are, and what a replay of them would do."""
        books = self.night.books
        assert await self.listed() == books.by_reason
        began = time.monotonic()
        plan = await self.yard.json()
        self.figures |= {"dead": dict(books.by_reason), "plan": _planned(plan)}
        self.figures["plan_s"] = round(time.monotonic() - began, 1)
        assert _planned(plan) == books.plan()
        assert {kind: plan[kind] for kind in Kind} == Counter(books.forecast(event) for event in books.dead) | {
            Kind.UNJUDGED: 0
        }

    async def listed(self) -> dict[str, int]:
        """``dead list``: counts by reason."""
        done = json.loads((await self.run("list", "--json")).stdout)
        assert done["unindexed"] == 0
        return {group["reason"]: group["count"] for group in done["groups"]}

    async def run(self, *arguments: str) -> Finished:
        """``order-worker dead``, to a good end."""
        done = await self.yard.tool.run("dead", *arguments, JOURNAL_URL=self.yard.journal_url)
        assert done.code == 0, done.stderr
        return done

    # -- replaying ----------------------------------------------------------------------------------------------------

    async def replay(self, disturb: Disturb = kill) -> None:
        """What the platform refused goes back to work. The tool is killed once, then disturbed, and resumed."""
        books = self.night.books
        self.began = len(self.night.history)
        plan = await self.yard.json("--reason", Reason.REJECTED)
        assert _planned(plan) == books.plan(Reason.REJECTED)
        name = plan["replay_id"]
        self.replays.append(name)
        await self._broken(kill, KILLED_AT, "--plan", name, "--yes", "--canary", "10")
        status = await self.yard.status(name)
        assert status["state"] == "running"
        assert 0 < status["states"]["moved"] < plan["apply"]
        finished_it = await self._broken(disturb, DISTURBED_AT, "--resume", name, "--rate", GENTLE)
        if not finished_it:
            assert (await self.yard.json("--resume", name))["ended"] == "done"
        await self._gone_through(name)

    async def _broken(self, disturb: Disturb, percent: int, *options: str) -> bool:
        """A replay that is disturbed in the middle. Whether it came to its end all the same."""
        arguments = ("dead", "replay", *options)
        async with self.yard.tool.started(*arguments, JOURNAL_URL=self.yard.journal_url) as process:
            said = await until_moved(process, percent)
            await disturb(process)
            done = await finished(process)
        assert done.code in (0, -signal.SIGKILL), said + done.stderr
        assert (done.code == 0) == (disturb is not kill)
        assert disturb is kill or _MOVED.search(done.stderr), "it was not disturbed in the middle"
        return done.code == 0

    async def _gone_through(self, name: str) -> None:
        """Every letter of it moved, or dropped because something newer was applied; the rest would come back."""
        status = await self.yard.status(name)
        assert (status["state"], status["states"]["planned"], status["states"]["missing"]) == ("done", 0, 0)

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def clean_up(self) -> None:
        """All other reasons at once; a few orders by a person's word; the invalid ones into a file and away."""
        began = time.monotonic()
        done = await self.yard.json("--yes")
        took_s = time.monotonic() - began
        self.figures |= {"rest": done["states"], "rest_s": round(took_s, 1)}
        assert done["ended"] == "done"
        self.replays.append(done["replay_id"])
        await self._free()
        file = str(self.night.world.folder / "discarded.ndjson")
        plan = json.loads((await self.run("discard", "--reason", Reason.INVALID_EVENT, "--json")).stdout)
        wanted = self.night.books.by_reason[Reason.INVALID_EVENT]
        assert plan["matching"] == wanted
        asked = ("discard", "--reason", Reason.INVALID_EVENT, "--to-file", file, "--yes", "--json")
        assert json.loads((await self.run(*asked)).stdout)["discarded"] == wanted

    async def _free(self) -> None:
        """Some orders leave their terminal status after all, because somebody says so."""
        books = self.night.books
        returning = [event for event in books.dead if event.order_id > DISPATCHED and _returns(books.forecast(event))]
        orders = sorted({event.order_id for event in returning})[:FREED]
        named = [part for order_id in orders for part in ("--order", str(order_id))]
        done = await self.yard.json("--reason", Reason.TERMINAL_ORDER, *named, "--allow-terminal", "--yes")
        books.freed |= set(orders)
        assert done["plan"]["apply"] == done["states"]["moved"] == sum(e.order_id in books.freed for e in returning)
        self.replays.append(done["replay_id"])

    # -- the end ------------------------------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Wait until the platform shows the greatest versions and nothing is queued; then end the workers."""
        world = self.night.world
        await self.night.until_right()
        await world.outside.until_ready(world.settings["QUEUE"], 0)
        for worker in world.workers:
            if worker.is_running:
                assert await worker.terminate(deadline_s=LONG_S) == 0

    async def wind_up(self) -> None:
        """Everything that the command line and the queues know, put together. AssertionError where it does not fit."""
        world, books = self.night.world, self.night.books
        assert await world.leftover() == 0
        for status in await asyncio.gather(*map(self.yard.status, self.replays)):
            self.ends.note_replay(status)
        self.ends.note("discarded", _ids_in(world.folder / "discarded.ndjson"))
        kept, listed = await asyncio.gather(self.exported(), self.listed())
        self.ends.note("dead", kept)
        assert Counter(listed) == Counter(books.events[each].reason for each in kept)
        wanted = {event.message_id: self._ends_of(event) for event in books.dead}
        self.figures["ends"] = dict(self.ends.figures)
        problems: Problems = self.ends.problems(books, wanted)
        assert problems == {}
        await self._timeline(next(event for event in books.dead if event.reason is Reason.REJECTED))

    async def _timeline(self, event: Event) -> None:
        """``order ID`` tells the same of one that was replayed: what it died of, and then its end."""
        done = await self.yard.tool.run("order", str(event.order_id), "--json", JOURNAL_URL=self.yard.journal_url)
        rows = [row for row in json.loads(done.stdout)["events"] if row["message_id"] == event.message_id]
        assert (rows[0]["outcome"], rows[0]["reason"], rows[0]["replay_id"]) == ("dead", Reason.REJECTED, None)
        assert (rows[-1]["outcome"], rows[-1]["replay_id"]) == ("ack", self.replays[0])
        assert rows[-1]["reason"] in self._ends_of(event)

    async def exported(self) -> list[str]:
        """The producers' message ids of what is in the dead-letter queue."""
        file = self.night.world.folder / "still dead.ndjson"
        await self.run("export", str(file))
        return _ids_in(file)

    def _ends_of(self, event: Event) -> Collection[str]:
        match self.night.books.forecast(event):
            case Kind.APPLY:
                return ANY_END
            case Kind.SUPERSEDED:
                return ("superseded",)
            case _ if event.reason is Reason.INVALID_EVENT:
                return ("discarded",)
            case _:
                return ANY_END if event.order_id in self.night.books.freed else ("dead",)


def _planned(plan: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(cell["reason"], cell["kind"]): cell["count"] for cell in plan["by_reason"]}


def _returns(kind: Kind) -> bool:
    return kind is Kind.RETURNS


def _ids_in(path: Path) -> list[str]:
    return [json.loads(line)["message_id"] for line in path.read_text().splitlines()]
