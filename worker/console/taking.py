"""Pages of what goes through the dead-letter queue once: export, discard (into a file first), bringing the index up to
date. They act on everything that the filter matches; and the page of whatever work is under way.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aiohttp import web
from multidict import MultiDict, MultiMapping

from worker import deadletters
from worker.console.desk import WAIT_S, Desk, holder, who
from worker.console.live import Parts, stream
from worker.console.selection import Selection
from worker.console.works import Job, Work
from worker.core.audit import Action, Outcome
from worker.core.errors import UsageError
from worker.core.history import Sought
from worker.core.times import format_time
from worker.deadletters import Taken
from worker.exportfile import DiscardFile, ExportFile
from worker.lookups import reasons_of, total
from worker.ports import Taking, wall_us
from worker.replay.books import Books
from worker.replay.reaching import at_the_queue, schema_of

MOST_SHOWN: Final = 100
_OTHERS_HOLD: Final = "; others are at the queue, and what they hold was not looked at"


class TakingPages:
    """The pages under ``/dead`` that change something, ``/works`` and ``/files``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [
            web.get("/dead/discard", self.ask),
            web.post("/dead/discard", self.discard),
            web.post("/dead/export", self.export),
            web.post("/dead/sync", self.sync),
            web.get("/works/{number}", self.work),
            web.get("/works/{number}/live", self.live),
            web.post("/works/{number}/stop", self.stop),
            web.get("/files/{name}", self.file),
        ]

    # -- asking -------------------------------------------------------------------------------------------------------

    async def ask(self, request: web.Request) -> web.Response:
        """What would be discarded, and the button that does it."""
        await self._desk.access.check_operator(request)
        now_us, books = wall_us(), await self._desk.books()
        selection = Selection.of(request.query).fixed(now_us)
        if not selection.until:  # what fails from now on is not meant
            selection = replace(selection, until=format_time(now_us))
        reasons = await reasons_of(books, selection.sought(self._desk.queue, now_us))
        return self._desk.pages.page(
            request,
            "discard.html",
            title="Discard",
            selection=selection,
            total=total(reasons),
            rows=reasons[:MOST_SHOWN],
            folder=self._desk.settings.console_files,
        )

    async def discard(self, request: web.Request) -> web.Response:
        """Take them out of the queue for good, each after it is in a file and in the journal."""
        person, posted = who(request), await request.post()
        selection = Selection.of(texts(posted))
        sought = self._sought(selection)
        books = await self._desk.books()
        count = total(await reasons_of(books, sought))
        # What the person agreed to: letters that came since need another look.
        if posted.get("count") != str(count):
            raise UsageError(f"{count} letters match by now; look at the list again before you discard them")
        path = self._desk.folder() / f"discarded-{stamp()}.ndjson"

        async def job(work: Work) -> str:
            async with self._taking(holder(person)) as taking:
                with DiscardFile(path) as sink:
                    chosen = deadletters.Selection(sought, schema_of(self._desk.settings), index=books)
                    done = await deadletters.discard(
                        taking, chosen, sink, books, by=holder(person), progress=_progress(work)
                    )
            return _told(work, done, path if done.chosen else None, "discarded")

        return await self._begin(request, Action.DISCARD, job, selection.query() or "everything")

    async def export(self, request: web.Request) -> web.Response:
        """Write them to a file; they stay where they are."""
        person = who(request)
        if not self._desk.shows_payloads(person):
            raise web.HTTPForbidden(text="bodies are not shown here (PAYLOADS)")
        selection = Selection.of(texts(await request.post()))
        sought, books = self._sought(selection), await self._desk.books()
        path = self._desk.folder() / f"exported-{stamp()}.ndjson"

        async def job(work: Work) -> str:
            with ExportFile(path) as sink:
                async with self._taking(holder(person)) as taking:
                    chosen = deadletters.Selection(sought, schema_of(self._desk.settings), index=books)
                    done = await deadletters.export(taking, chosen, sink, progress=_progress(work))
            return _told(work, done, path, "exported")

        return await self._begin(request, Action.EXPORT, job, selection.query() or "everything")

    async def sync(self, request: web.Request) -> web.Response:
        """Bring the index up to date with the queue."""
        person, books = who(request), await self._desk.books()

        async def job(work: Work) -> str:
            async with self._taking(holder(person)) as taking:
                chosen = deadletters.Selection(Sought(queue=self._desk.queue), schema_of(self._desk.settings))
                done = await deadletters.sync(taking, books, chosen, progress=_progress(work))
            work.count = done.found
            told = f"{done.found} found, {done.added} added to the index, {done.gone} gone from the queue"
            return told if done.complete else f"{told}; others hold some, so nothing was called gone"

        return await self._begin(request, Action.SYNC, job, self._desk.queue)

    def _sought(self, selection: Selection) -> Sought:
        if not selection.is_fixed:
            raise UsageError("times, not spans: what is meant has to stay the same while it is done")
        return selection.sought(self._desk.queue, wall_us())

    @asynccontextmanager
    async def _taking(self, by: str) -> AsyncIterator[Taking]:
        books: Books = await self._desk.books()
        async with (
            at_the_queue(self._desk.settings, self._desk.queue, holders=books, wait_s=WAIT_S) as there,
            there.taking(by) as taking,
        ):
            yield taking

    async def _begin(self, request: web.Request, action: Action, job: Job, target: str) -> web.Response:
        person = who(request)
        work = self._desk.works.start(action, job, by=person.name, target=target, takes_queue=True)
        await self._desk.auditing.note(person.name, action, Outcome.BEGUN, target)
        raise web.HTTPSeeOther(work.place)

    # -- what is under way --------------------------------------------------------------------------------------------

    async def work(self, request: web.Request) -> web.Response:
        """How far a work is."""
        work = self._work(request)
        if work.is_over and not work.failed and work.place != f"/works/{work.number}":
            raise web.HTTPSeeOther(work.place)
        return self._desk.pages.page(request, "work.html", title=_TITLES[work.action], work=work)

    async def live(self, request: web.Request) -> web.StreamResponse:
        """The same, while it goes on."""
        work = self._work(request)

        async def render() -> Parts | None:
            if work.is_over:
                return None
            return {"work": self._desk.pages.fragment(request, "_work.html", work=work)}

        return await stream(request, render)

    async def stop(self, request: web.Request) -> web.Response:
        """End it in good order."""
        work = self._work(request)
        if not work.ask_to_stop():
            raise web.HTTPConflict(text="this cannot be stopped now; it ends by itself")
        raise web.HTTPSeeOther(work.place)

    def _work(self, request: web.Request) -> Work:
        work = self._desk.works.get(request.match_info["number"])
        if work is None:
            raise web.HTTPNotFound(text="nobody knows of this any more: the console was started anew since. See Audit")
        return work

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A file that was written here, for those who may see what is in it."""
        person, name = who(request), request.match_info["name"]
        if not self._desk.shows_payloads(person) or not person.operates:
            await self._desk.access.refuse(request, person.name, "no payloads for this role")
            raise web.HTTPForbidden(text="files hold whole messages; they are for operators (PAYLOADS)")
        path = self._desk.folder() / name
        if not name.endswith(".ndjson") or Path(name).name != name or not path.is_file():
            raise web.HTTPNotFound(text="there is no such file")
        await self._desk.auditing.note(person.name, Action.EXPORT, Outcome.DONE, name, "downloaded")
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Type": "application/x-ndjson"}
        return web.FileResponse(path, headers=headers)


_TITLES: Final = {
    Action.LOOK: "Looking at a letter",
    Action.EXPORT: "Export",
    Action.DISCARD: "Discard",
    Action.SYNC: "Bringing the index up to date",
    Action.PLAN: "Planning a replay",
    Action.REPLAY: "Replay",
}


def _progress(work: Work) -> deadletters.Progress:
    def progress(looked: int) -> None:
        work.looked = looked

    return progress


def texts(posted: MultiMapping[str | bytes | bytearray | web.FileField]) -> MultiMapping[str]:
    """The texts of a form; files are none."""
    return MultiDict((name, text) for name, text in posted.items() if isinstance(text, str))


def _told(work: Work, done: Taken, path: Path | None, verb: str) -> str:
    work.count = done.chosen
    work.file = "" if path is None else path.name
    told = f"{done.chosen} of {done.looked} dead letters {verb}"
    return told if done.complete else told + _OTHERS_HOLD


def stamp() -> str:
    """The time in the name of a file."""
    now_us = wall_us()
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC).strftime("%Y%m%dT%H%M%S")
    return f"{moment}{now_us % 1_000_000:06d}"
