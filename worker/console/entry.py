"""The door: log in with a token, log out; our own static files; and whether the process answers."""

import math
from typing import Final

from aiohttp import web

from worker.console.access import VISITOR, is_ours
from worker.console.desk import Desk
from worker.console.sessions import LIFETIME_S
from worker.core.audit import Action, Outcome

HOME: Final = "/now"
LONGEST_TOKEN: Final = 200


class EntryPages:
    """``/``, ``/login``, ``/logout``, ``/static`` and ``/healthz``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._access = desk.access

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [
            web.get("/", self.home),
            web.get("/login", self.ask),
            web.post("/login", self.log_in),
            web.post("/logout", self.log_out),
            web.get("/static/{name}", self.static),
            web.get("/healthz", self.alive),
        ]

    async def home(self, _request: web.Request) -> web.Response:
        """The first page."""
        raise web.HTTPSeeOther(HOME)

    async def alive(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return web.json_response({"alive": True})

    async def static(self, request: web.Request) -> web.Response:
        """Style, script and icon."""
        return self._desk.pages.static(request.match_info["name"])

    async def ask(self, request: web.Request) -> web.Response:
        """Where the token is typed."""
        if request.get(VISITOR) is not None or self._access.people is None:
            raise web.HTTPSeeOther(HOME)
        return self._form(request)

    async def log_in(self, request: web.Request) -> web.Response:
        """Begin a session for whoever has a token."""
        people, address = self._access.people, self._access.address(request)
        if people is None:
            raise web.HTTPNotFound
        if wait_s := self._access.throttle.wait_s(address):
            await self._access.refuse(request, "(nobody)", "too many wrong tokens")
            headers = {"Retry-After": str(math.ceil(wait_s))}
            raise web.HTTPTooManyRequests(
                text=f"too many wrong tokens: try again in {math.ceil(wait_s)} s", headers=headers
            )
        await self._access.check_form(request, "login", "(nobody)")
        token = str((await request.post()).get("token", "")).strip()
        person = people.holder_of(token) if len(token) <= LONGEST_TOKEN else None
        if person is None:
            self._access.throttle.failed(address)
            await self._desk.auditing.note("(nobody)", Action.LOG_IN, Outcome.REFUSED, f"from {address}")
            return self._form(request, 403, "Nobody has this token. Copy it whole, or ask whoever keeps the file.")
        await self._desk.auditing.note(person.name, Action.LOG_IN, Outcome.DONE, f"from {address}")
        wanted = request.query.get("next", HOME)
        answer = web.HTTPSeeOther(wanted if is_ours(wanted) else HOME)
        answer.set_cookie(
            self._access.cookie,
            self._access.sessions.open(person.name, person.proof),
            max_age=LIFETIME_S,
            httponly=True,
            samesite="Strict",
            secure=self._access.is_encrypted,
            path="/",
        )
        raise answer

    async def log_out(self, request: web.Request) -> web.Response:
        """End the session."""
        visitor = request[VISITOR]
        if visitor.session is not None:
            self._access.sessions.end(visitor.session)
        await self._desk.auditing.note(visitor.person.name, Action.LOG_OUT, Outcome.DONE)
        answer = web.HTTPSeeOther("/login")
        answer.del_cookie(self._access.cookie, path="/", secure=self._access.is_encrypted, httponly=True)
        raise answer

    def _form(self, request: web.Request, status: int = 200, problem: str = "") -> web.Response:
        wanted = request.query.get("next", "")
        wanted = wanted if is_ours(wanted) else ""
        return self._desk.pages.page(request, "login.html", status, title="Log in", problem=problem, wanted=wanted)
