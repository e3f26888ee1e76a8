"""The page that says who did what to which messages, and with which outcome."""

from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from worker.console.desk import Desk
from worker.console.selection import number_in
from worker.console.words import in_address
from worker.core.audit import Action, Deed

ROWS: Final = 100


class AuditPages:
    """The page ``/audit``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """Where it is."""
        return [web.get("/audit", self.list)]

    async def list(self, request: web.Request) -> web.Response:
        """The latest first, a page at a time."""
        before = number_in(request.query, "before") or None
        books = await self._desk.books()
        deeds = await books.deeds(before=before, limit=ROWS + 1)
        return self._desk.pages.page(
            request,
            "audit.html",
            title="Audit",
            rows=[(deed, _link(deed), _named(deed)) for deed in deeds[:ROWS]],
            following=deeds[ROWS - 1].number if len(deeds) > ROWS else None,
            before=before,
        )


def _named(deed: Deed) -> str:
    """What it was done to, as people read it: a selection as names and values."""
    if not deed.target.startswith("?"):
        return deed.target
    return ", ".join(f"{name} {text}" for name, text in parse_qsl(deed.target[1:]))


def _link(deed: Deed) -> str:
    """The page of what it was done to; empty for none."""
    if deed.action in (Action.REPLAY, Action.PLAN, Action.STOP) and deed.target.startswith("r-"):
        return f"/replays/{deed.target}"
    if deed.action is Action.LOOK:
        return f"/dead/letter?copy={in_address(deed.target)}"
    if deed.target.startswith("?") and not deed.target.endswith("…"):  # what was cut means others
        return f"/dead/letters{deed.target}"
    return ""
