"""Taking one dead letter out of the queue to look at it. It goes back to its place, but the look costs every letter
before it one delivery count, so a person has to ask for it, and what was seen is kept for a while.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from aiohttp import web

from worker.console.desk import WAIT_S, Desk, holder, who
from worker.console.works import Work
from worker.core.audit import Action
from worker.core.deadletter import DeadLetter, letter_key
from worker.core.errors import QueueWorn, UsageError
from worker.core.model import Properties
from worker.core.table import readable
from worker.ports import wall_us
from worker.replay.reaching import at_the_queue, worn_words

KEPT_US: Final = 15 * 60_000_000
MOST_KEPT: Final = 20
LONGEST_SHOWN: Final = 64 * 1024
"""Bytes of a body that are shown: the most that an event may have."""
LONGEST_KEPT: Final = 1024 * 1024


class Looked:
    """Letters that somebody looked at, for a quarter of an hour; the latest twenty."""

    def __init__(self, *, clock_us: Callable[[], int] = wall_us) -> None:
        self._letters: OrderedDict[str, tuple[int, DeadLetter]] = OrderedDict()
        self._clock_us = clock_us

    def keep(self, letter: DeadLetter) -> None:
        """Until it is old, or others push it out. One that is too large is not kept."""
        if len(letter.delivery.body) <= LONGEST_KEPT:
            self._letters[letter_key(letter)] = (self._clock_us(), letter)
            while len(self._letters) > MOST_KEPT:
                self._letters.popitem(last=False)

    def get(self, copy_id: str) -> DeadLetter | None:
        """The letter, if it was looked at lately."""
        since_us, letter = self._letters.get(copy_id, (0, None))
        if letter is not None and self._clock_us() - since_us > KEPT_US:
            del self._letters[copy_id]
            return None
        return letter


class LookPages:
    """Asks for a look."""

    def __init__(self, desk: Desk, looked: Looked) -> None:
        self._desk = desk
        self._looked = looked

    def routes(self) -> list[web.RouteDef]:
        """Where it is."""
        return [web.post("/dead/look", self.look)]

    async def look(self, request: web.Request) -> web.Response:
        """Begin it; the letter's own page shows what was found."""
        person = who(request)
        if not self._desk.shows_payloads(person):
            raise web.HTTPForbidden(text="bodies and headers are not shown here (PAYLOADS)")
        copy_id = str((await request.post()).get("copy", ""))
        if not copy_id:
            raise UsageError("which letter?")

        async def job(work: Work) -> str:
            return await self._find(copy_id, holder(person), work)

        place = str(request.url.with_path("/dead/letter").with_query(copy=copy_id).relative())
        work = self._desk.works.start(Action.LOOK, job, by=person.name, target=copy_id, takes_queue=True)
        work.place = place
        raise web.HTTPSeeOther(f"/works/{work.number}")

    async def _find(self, copy_id: str, by: str, work: Work) -> str:
        found: list[DeadLetter] = []

        def receive(letter: DeadLetter) -> bool:
            work.looked += 1
            if letter_key(letter) == copy_id:
                found.append(letter)
            return not found

        queue = self._desk.queue
        async with at_the_queue(self._desk.settings, queue, holders=await self._desk.books(), wait_s=WAIT_S) as there:
            look = await there.look(receive, holder=by)
        if look.worn:
            raise QueueWorn(
                f"{worn_words(queue, look.worn)} it takes `order-worker dead show --yes`", deliveries=look.worn
            )
        if not found:
            raise UsageError("it is not in the queue any more; Bring up to date (on the list) finds out what is gone")
        self._looked.keep(found[0])
        return "looked at; it is back in its place"


def shown_letter(letter: DeadLetter) -> dict[str, Any]:
    """Body, headers and properties as a page shows them."""
    body = letter.delivery.body
    text, kind = _text(body[:LONGEST_SHOWN])
    return {
        "text": text,
        "kind": kind,
        "size": len(body),
        "cut": len(body) > LONGEST_SHOWN,
        "headers": sorted((str(name), _shown(value)) for name, value in letter.delivery.properties.headers.items()),
        "properties": _properties(letter.delivery.properties),
        "failures": [asdict(failure) for failure in letter.history.failures],
        "deaths": [_shown(dict(death)) for death in letter.deaths],
        "deliveries": letter.deliveries,
        "exchange": letter.history.exchange if letter.history.exchange is not None else letter.delivery.exchange,
    }


def _text(body: bytes) -> tuple[str, str]:
    """The body as text, and what it is."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body[:4096].hex(" "), "binary"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text, "text"
    return text, "JSON"


def _properties(properties: Properties) -> list[tuple[str, str]]:
    names = (
        "message_id",
        "content_type",
        "content_encoding",
        "delivery_mode",
        "priority",
        "correlation_id",
        "reply_to",
    )
    more = ("expiration", "timestamp", "message_type", "user_id", "app_id")
    values = ((name, getattr(properties, name)) for name in (*names, *more))
    return [
        (name, value.isoformat() if isinstance(value, datetime) else str(value))
        for name, value in values
        if value is not None
    ]


def _shown(value: object) -> str:
    plain = readable(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
