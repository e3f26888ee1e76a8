"""Editing the event of one dead letter and replaying it: checked while somebody types, by the rules that the worker
goes by, and then the way of every replay of a file (plan first, journalled, the letter leaves the queue behind its
copy).
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from worker.console.desk import Desk, who
from worker.console.looking import Looked
from worker.console.running import Runs
from worker.console.taking import stamp
from worker.console.words import changes
from worker.core.deadletter import DeadLetter
from worker.core.errors import UsageError
from worker.core.forecast import Forecast
from worker.core.history import ReplayItem
from worker.core.letterfile import letter_line, read_letter
from worker.core.model import Dead
from worker.core.replayoptions import Options
from worker.exportfile import DiscardFile
from worker.ports import wall_us
from worker.replay.books import Books
from worker.replay.filing import LetterFile, letter_of
from worker.replay.judging import Prepared, Preparing
from worker.replay.reaching import grounds_of, home_of, schema_of

LONGEST: Final = 128 * 1024
"""Characters of an edited body: twice what an event may have, so that the schema gets to say so."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Checked:
    """What somebody typed, as the worker would see it. ``problem`` says why it is no event, empty where it is one."""

    problem: str = ""
    forecast: Forecast | None = None
    line: bytes = b""
    prepared: Prepared | None = None

    def to_json(self) -> dict[str, Any]:
        """For the page that asks while somebody types."""
        update = None if self.prepared is None else self.prepared.decoded
        told = [] if update is None or isinstance(update, Dead) else changes(update.fields)
        return {
            "ok": not self.problem,
            "problem": self.problem,
            "would": "" if self.forecast is None else self.forecast.kind.value,
            "detail": "" if self.forecast is None else self.forecast.detail,
            "order": None if self.prepared is None else self.prepared.order_id,
            "changes": [f"{name}: {text}" for name, text in told],
        }


class EditPages:
    """The pages under ``/dead/edit``."""

    def __init__(self, desk: Desk, looked: Looked, runs: Runs) -> None:
        self._desk = desk
        self._looked = looked
        self._runs = runs

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [
            web.get("/dead/edit", self.edit),
            web.post("/dead/edit/check", self.check),
            web.post("/dead/edit", self.plan),
        ]

    async def edit(self, request: web.Request) -> web.Response:
        """The body in a field, and whether it is an event."""
        await self._desk.access.check_operator(request)
        letter = self._letter(request, request.query.get("copy", ""))
        text = letter.delivery.body.decode("utf-8", "replace")
        return await self._shown(request, request.query["copy"], text, await self._check(letter, text))

    async def check(self, request: web.Request) -> web.Response:
        """What is typed, checked; for the script of the page."""
        posted = await request.post()
        letter = self._letter(request, str(posted.get("copy", "")))
        return web.json_response((await self._check(letter, str(posted.get("body", "")))).to_json())

    async def plan(self, request: web.Request) -> web.Response:
        """Plan the replay of what was typed, if it is an event."""
        posted, person = await request.post(), who(request)
        copy_id, text = str(posted.get("copy", "")), str(posted.get("body", ""))
        checked = await self._check(self._letter(request, copy_id), text)
        if checked.problem:
            return await self._shown(request, copy_id, text, checked, 400)
        path = self._desk.folder() / f"edited-{stamp()}.ndjson"
        with DiscardFile(path) as file:
            file.write(checked.line)
            file.sync()
        queue = self._desk.queue
        options = Options(
            queue=queue,
            exchange=home_of(self._desk.settings, queue),
            file=str(path),
            digest=LetterFile(path).digest(),
            allow_terminal="allow_terminal" in posted,
        )
        work = await self._runs.plan(options, person)
        raise web.HTTPSeeOther(work.place)

    async def _shown(
        self, request: web.Request, copy_id: str, text: str, checked: Checked, status: int = 200
    ) -> web.Response:
        told = checked.to_json()
        return self._desk.pages.page(
            request, "edit.html", status, title="Edit and replay", copy_id=copy_id, text=text, checked=told
        )

    def _letter(self, request: web.Request, copy_id: str) -> DeadLetter:
        if not self._desk.shows_payloads(who(request)):
            raise web.HTTPForbidden(text="bodies are not shown here (PAYLOADS)")
        letter = self._looked.get(copy_id)
        if letter is None:
            raise UsageError("look at the body first: what was looked at is kept for a quarter of an hour")
        return letter

    async def _check(self, letter: DeadLetter, text: str) -> Checked:
        """By the schema, then by what is applied of its order."""
        if len(text) > LONGEST:
            return Checked(problem=f"longer than {LONGEST} characters")
        try:
            event = json.loads(text)
        except (ValueError, RecursionError) as error:
            return Checked(problem=f"not JSON: {error}")
        if not isinstance(event, dict):
            return Checked(problem="not a JSON object")
        line = _edited_line(letter, event)
        try:
            filed = read_letter(line, 1)
        except UsageError as error:
            return Checked(problem=str(error))
        item = ReplayItem(place=0, copy_id=filed.copy_id)
        prepared = self._preparing().prepare(item, letter_of(filed), now_us=wall_us())
        if isinstance(prepared.decoded, Dead):
            return Checked(problem=prepared.decoded.detail, prepared=prepared)
        return Checked(forecast=await self._forecast(prepared), line=line, prepared=prepared)

    async def _forecast(self, prepared: Prepared) -> Forecast:
        books: Books = await self._desk.books()
        known = await books.known([] if prepared.order_id is None else [prepared.order_id])
        return prepared.forecast(known, (await grounds_of(books, self._desk.settings))())

    def _preparing(self) -> Preparing:
        queue = self._desk.queue
        options = Options(queue=queue, exchange=home_of(self._desk.settings, queue))
        schema = schema_of(self._desk.settings)
        return Preparing(schema=schema, replay_id="r-check", created_us=wall_us(), options=options)


def _edited_line(letter: DeadLetter, event: dict[str, Any]) -> bytes:
    """The letter as a line of a file in which somebody edited the event."""
    line: dict[str, Any] = json.loads(letter_line(letter))
    line.pop("body", None)
    if "event" not in line:  # it was no JSON object before
        line.pop("body_base64", None)
    line["event"] = event
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"
