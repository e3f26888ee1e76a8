"""Who is asking, and whether they may: checked before any page is made, and refusals noted.

In this order: the name that was typed (``Host``: no page of somewhere else may have its name point to us), who it is
(a session, the header of a proxy that is believed, or whoever is at this machine), and for everything that changes
something: the page it comes from (``Origin``), the token of a form of ours, the role.
"""

import getpass
import ipaddress
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from worker.console.people import People, Person, Role
from worker.console.sessions import Session, Sessions, Throttle
from worker.core.audit import Action, Outcome
from worker.core.conflicts import is_loopback
from worker.core.settings import ConsoleSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Note = Callable[[str, Action, Outcome, str, str], Awaitable[None]]
"""Notes a deed: by whom, what, with which outcome, what it was done to, and why."""

FORM_FIELD: Final = "form_token"
FORM_HEADER: Final = "X-Form-Token"
ALIVE: Final = "/healthz"
"""For orchestrators, which name the address of the container. It says nothing but that the process answers."""
OPEN_TO_ALL: Final = ("/login", "/static/")
NOBODY: Final = "(nobody)"
_FORWARDED: Final = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"}
)


@dataclass(slots=True, frozen=True, kw_only=True)
class Visitor:
    """Who is asking. ``subject`` is what form tokens are made for; ``session`` None where there are none."""

    person: Person
    subject: str
    session: Session | None = None


VISITOR: Final = web.RequestKey("visitor", Visitor)


class Access:
    """The rules of one console. ``people`` is None where nobody logs in here."""

    def __init__(self, settings: ConsoleSettings, people: People | None, *, note: Note) -> None:
        self.sessions = Sessions()
        self.throttle = Throttle()
        self.people = people
        self._settings = settings
        self._note = note
        self._networks = [ipaddress.ip_network(each) for each in settings.console_proxy_from]
        self._origins = _origins(settings)
        self._hosts = {urlsplit(origin).netloc for origin in self._origins}
        self._local = Person(name=_user(), role=Role.OPERATOR)

    @property
    def is_encrypted(self) -> bool:
        """Whether people reach it over TLS: then the cookie goes nowhere else."""
        return self._settings.console_url.startswith("https:")

    @property
    def cookie(self) -> str:
        """Its name. With the prefix browsers insist on TLS, on the whole host, and on nobody else having set it."""
        return "__Host-order-worker" if self.is_encrypted else "order-worker"

    def middleware(self) -> Middleware:
        """To be asked before all others but the one that shows errors."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path == ALIVE:
                return await handler(request)
            if request.host.lower() not in self._hosts:
                await self.refuse(request, NOBODY, f"unknown host {request.host[:100]!r}")
                raise web.HTTPMisdirectedRequest(text="this console is not reached by that name: see CONSOLE_URL")
            visitor = self._visitor(request)
            if visitor is not None:
                request[VISITOR] = visitor
            if request.method not in ("GET", "HEAD"):
                await self._check_origin(request, visitor)
            if request.path.startswith(OPEN_TO_ALL):
                return await handler(request)
            if visitor is None:
                raise self._log_in_first(request)
            if request.method not in ("GET", "HEAD"):
                await self.check_form(request, visitor.subject, visitor.person.name)
                if request.path != "/logout":
                    await self.check_operator(request)
            return await handler(request)

        return guard

    # -- who ----------------------------------------------------------------------------------------------------------

    def address(self, request: web.Request) -> str:
        """Where the request comes from; behind the proxy that is believed, what that one says."""
        peer = _peer(request)
        said = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        return said[:64] if said and self._is_proxy(peer) else peer

    def _visitor(self, request: web.Request) -> Visitor | None:
        if (vouched := self._vouched(request)) is not None:
            return Visitor(person=vouched, subject=f"proxy:{vouched.name}")
        people = self.people
        if people is not None:
            session = self.sessions.read(request.cookies.get(self.cookie, ""), lambda name: _proof(people, name))
            person = None if session is None else people.named(session.name)
            if session is None or person is None:
                return None
            return Visitor(person=person, subject=f"session:{session.number}", session=session)
        if self._settings.console_proxy_header or not is_loopback(_peer(request)):
            return None
        if not _FORWARDED.isdisjoint(name.lower() for name in request.headers):
            return None  # a proxy on this machine: whoever is behind it is not at this machine
        return Visitor(person=self._local, subject="local")

    def _vouched(self, request: web.Request) -> Person | None:
        header = self._settings.console_proxy_header
        if not header or not self._is_proxy(_peer(request)):
            return None
        names = request.headers.getall(header, [])
        # Twice: one of them came from the browser, and nobody knows which.
        if len(names) != 1 or not names[0].strip() or not names[0].isprintable() or len(names[0]) > 100:
            return None
        name = names[0].strip()
        role = Role.OPERATOR if name in self._settings.console_operators else Role.VIEWER
        return Person(name=name, role=role)

    def _is_proxy(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self._networks)

    def _log_in_first(self, request: web.Request) -> Exception:
        # Scripts cannot log in: they are told, not led to a page.
        accepts = request.headers.get("Accept", "*/*")
        if request.method != "GET" or not ("text/html" in accepts or "*/*" in accepts):
            return web.HTTPUnauthorized(text="log in first")
        if self.people is None:
            text = "a console behind a proxy asks people to log in: set CONSOLE_TOKENS_FILE, or CONSOLE_PROXY_HEADER"
            return web.HTTPUnauthorized(text=text)
        return web.HTTPSeeOther(f"/login?next={quote(request.path_qs, safe='')}")

    # -- whether ------------------------------------------------------------------------------------------------------

    async def _check_origin(self, request: web.Request, visitor: Visitor | None) -> None:
        """Browsers say which page sends a form; one that is not ours is refused, and so is one that does not say."""
        origins = request.headers.getall("Origin", [])
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        if len(origins) == 1 and origins[0].lower() in self._origins and site in ("same-origin", "none"):
            return
        who = NOBODY if visitor is None else visitor.person.name
        await self.refuse(request, who, f"wrong origin {', '.join(origins)[:100] or '(none)'}")
        raise web.HTTPForbidden(text="forms are only taken from this console's own pages")

    async def check_form(self, request: web.Request, subject: str, who: str) -> None:
        """403 where the form was not made for this session."""
        given = request.headers.get(FORM_HEADER)
        if given is None:
            posted = (await request.post()).get(FORM_FIELD, "")
            given = posted if isinstance(posted, str) else ""
        if not self.sessions.is_form_token(subject, given):
            await self.refuse(request, who, "no form of this session")
            raise web.HTTPForbidden(text="this form is from another session, or from before a restart: reload the page")

    async def check_operator(self, request: web.Request) -> None:
        """403 for viewers."""
        person = request[VISITOR].person
        if not person.operates:
            await self.refuse(request, person.name, f"role {person.role.value}")
            raise web.HTTPForbidden(text="this needs the role operator; yours is viewer, which only looks")

    async def refuse(self, request: web.Request, who: str, why: str) -> None:
        """Note that something was refused."""
        target = f"{request.method} {request.path[:100]} from {self.address(request)}"
        await self._note(who, Action.ACCESS, Outcome.REFUSED, target, why)


def is_ours(path: str) -> bool:
    """Whether this is a place in this console, and not an address elsewhere in disguise."""
    return path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable() and "\\" not in path


def _proof(people: People, name: str) -> str | None:
    person = people.named(name)
    return None if person is None else person.proof


def _origins(settings: ConsoleSettings) -> frozenset[str]:
    """The addresses that people may have typed, as browsers write them."""
    host, port = settings.console_host, settings.console_port
    found = {settings.console_url.lower()} if settings.console_url else set()
    if is_loopback(host):
        found |= {f"http://{name}{'' if port == 80 else f':{port}'}" for name in ("localhost", "127.0.0.1", "[::1]")}
    return frozenset(found)


def _peer(request: web.Request) -> str:
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return str(os.getuid())
