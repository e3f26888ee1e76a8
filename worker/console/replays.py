"""Pages of replays: the plan of what a filter matches, frozen; carrying it out with a canary, a rate and an automatic
stop; how far it is, stop and resume.

The journal knows plan and progress, so a page may be closed, and the console killed, at any point. What a killed
console left behind says ``running`` there although nobody runs it: here it is called interrupted, and can be resumed.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Final

from aiohttp import web

from worker.console.desk import Desk, who
from worker.console.forms import options_of, tempo_of
from worker.console.live import Parts, stream
from worker.console.running import Runs
from worker.console.selection import Selection, number_in
from worker.console.taking import texts
from worker.console.works import Work
from worker.core.audit import Action, Outcome
from worker.core.forecast import Kind
from worker.core.history import Fate, ItemState, Replay
from worker.core.replayoptions import Options
from worker.lookups import reasons_of, total
from worker.ports import wall_us
from worker.replay.books import Books, State
from worker.replay.telling import Standing, Story, standing, stories

ROWS: Final = 50
MOST_SHOWN: Final = 100
_FINISHED: Final = (ItemState.MOVED, ItemState.SUPERSEDED, ItemState.LEFT, ItemState.MISSING)


@dataclass(slots=True, frozen=True, kw_only=True)
class Progress:
    """How far a replay is, for people. ``name`` is its state as the pages call it; ``work`` runs it here and now."""

    name: str
    standing: Standing
    work: Work | None

    @property
    def done(self) -> int:
        """Messages that came to their end."""
        return sum(self.standing.states.get(state, 0) for state in _FINISHED)

    @property
    def states(self) -> list[tuple[ItemState, int]]:
        """Those with messages."""
        return [(state, self.standing.states[state]) for state in ItemState if self.standing.states.get(state)]

    @property
    def fates(self) -> list[tuple[Fate, int]]:
        """What the workers said last, the most frequent first."""
        return sorted(self.standing.fates.items(), key=lambda pair: (-pair[1], pair[0]))

    @property
    def open(self) -> int:
        """Messages that are still to go."""
        return self.standing.states.get(ItemState.PLANNED, 0)

    @property
    def waiting(self) -> int:
        """Copies that went out and have no outcome yet."""
        settled = sum(count for fate, count in self.standing.fates.items() if fate.disposition in ("ack", "dead"))
        went = self.standing.states.get(ItemState.MOVED, 0) + self.standing.states.get(ItemState.SUPERSEDED, 0)
        return max(0, went - settled)

    @property
    def is_settled(self) -> bool:
        """Nothing more comes of it by itself."""
        return self.work is None and not self.waiting


class ReplayPages:
    """The pages under ``/replays``."""

    def __init__(self, desk: Desk, runs: Runs) -> None:
        self._desk = desk
        self._runs = runs

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [
            web.get("/replays", self.list),
            web.get("/replays/new", self.ask),
            web.post("/replays", self.plan),
            web.get("/replays/{id}", self.show),
            web.get("/replays/{id}/live", self.live),
            web.post("/replays/{id}/judge", self.judge),
            web.post("/replays/{id}/start", self.start),
            web.post("/replays/{id}/stop", self.stop),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """The latest replays of the queue, whoever made them."""
        books = await self._desk.books()
        found = await books.replays(self._desk.queue, limit=ROWS)
        rows = [await self._progress(books, replay) for replay in found]
        return self._desk.pages.page(request, "replays.html", title="Replays", rows=rows)

    async def ask(self, request: web.Request) -> web.Response:
        """What is to be replayed, and how carefully."""
        await self._desk.access.check_operator(request)
        now_us, books = wall_us(), await self._desk.books()
        selection = Selection.of(request.query).fixed(now_us)
        reasons = await reasons_of(books, selection.sought(self._desk.queue, now_us))
        return self._desk.pages.page(
            request,
            "replaynew.html",
            title="Plan a replay",
            selection=selection,
            total=total(reasons),
            rows=reasons[:MOST_SHOWN],
        )

    async def plan(self, request: web.Request) -> web.Response:
        """Freeze the set and judge it; nothing moves."""
        posted = texts(await request.post())
        options = options_of(posted, self._desk.settings, Selection.of(posted))
        work = await self._runs.plan(options, who(request))
        raise web.HTTPSeeOther(work.place)

    async def show(self, request: web.Request) -> web.Response:
        """The plan, how far it is, and what can be done about it."""
        books = await self._desk.books()
        replay = await self._replay(books, request)
        progress = await self._progress(books, replay)
        after = _after(request)
        options = Options.from_json(replay.options)
        return self._desk.pages.page(
            request,
            "replay.html",
            title=f"Replay {replay.replay_id}",
            progress=progress,
            replay=replay,
            options=options,
            selection=Selection.of_options(options),
            tallies=await self._runs.tallies(books, replay, progress.open),
            kinds=KIND_WORDS,
            rows=await _some(books, replay, after),
            first=after + 1,
            last=self._runs.latest(replay.replay_id),
            holder=await books.holder(self._desk.queue) if progress.name == INTERRUPTED else None,
        )

    async def live(self, request: web.Request) -> web.StreamResponse:
        """How far it is, while it goes on or outcomes are still to come; over when it is not in the state any more that
        the page shows (``name``), so that the page offers what can be done now."""
        books, pages = await self._desk.books(), self._desk.pages
        name = request.query.get("name") or (await self._progress(books, await self._replay(books, request))).name
        told, rows = "", ""

        async def render() -> Parts | None:
            nonlocal told, rows
            replay = await self._replay(books, request)
            progress = await self._progress(books, replay)
            # Not the journal's word alone: a replay that is done there may still be winding up here.
            if progress.is_settled or progress.name != name:
                return None
            before, told = told, pages.fragment(request, "_progress.html", progress=progress, replay=replay)
            if told != before:  # nothing becomes of a message that is not counted there
                some = await _some(books, replay, _after(request))
                rows = pages.fragment(request, "_messages.html", rows=some)
            return {"progress": told, "messages-rows": rows}

        return await stream(request, render)

    async def judge(self, request: web.Request) -> web.Response:
        """What would come of it now."""
        books = await self._desk.books()
        replay = await self._replay(books, request)
        work = await self._runs.judge(replay, who(request))
        raise web.HTTPSeeOther(work.place)

    async def start(self, request: web.Request) -> web.Response:
        """Carry the plan out, or go on with it."""
        books = await self._desk.books()
        replay = await self._replay(books, request)
        if replay.state == State.PLANNING:
            raise web.HTTPConflict(text="this plan was never finished: plan anew, nothing of it was moved")
        if replay.state == State.DONE:
            raise web.HTTPConflict(text="this replay is done")
        options = tempo_of(texts(await request.post()), Options.from_json(replay.options))
        await self._runs.start(replay, options, who(request))
        raise web.HTTPSeeOther(f"/replays/{replay.replay_id}")

    async def stop(self, request: web.Request) -> web.Response:
        """End it in good order: what is under way is finished."""
        name, person = request.match_info["id"], who(request)
        work = self._runs.running(name)
        if work is None or not work.ask_to_stop():
            raise web.HTTPConflict(text="this console does not carry that replay out now, so there is nothing to stop")
        await self._desk.auditing.note(person.name, Action.STOP, Outcome.DONE, name)
        raise web.HTTPSeeOther(f"/replays/{name}")

    async def _replay(self, books: Books, request: web.Request) -> Replay:
        found = await books.replay(request.match_info["id"])
        if found is None or found.queue != self._desk.queue:
            raise web.HTTPNotFound(text="there is no such replay of this queue; it may have been forgotten meanwhile")
        return found

    async def _progress(self, books: Books, replay: Replay) -> Progress:
        work = self._runs.running(replay.replay_id)
        name = replay.state
        if work is not None:
            name = "stopping" if work.stopped else State.RUNNING.value
        elif replay.state == State.RUNNING:
            name = INTERRUPTED
        return Progress(name=name, standing=await standing(books, replay), work=work)


INTERRUPTED: Final = "interrupted"
"""The journal says ``running``, and this console does not run it: it was killed, or somebody else runs it."""
KIND_WORDS: Final = {
    Kind.APPLY: "would apply",
    Kind.SUPERSEDED: "superseded",
    Kind.RETURNS: "would come straight back",
    Kind.UNJUDGED: "judged when the body is read",
}


def _after(request: web.Request) -> int:
    """The place behind which the messages are shown: in the address its number as people count."""
    return number_in(request.query, "after", default=0) - 1


async def _some(books: Books, replay: Replay, after: int) -> list[Story]:
    """The messages of one page."""
    async for page in stories(books, replay, after=after, most=ROWS):
        return list(islice(page, ROWS))
    return []
