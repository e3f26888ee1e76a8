"""From templates to answers: what every page has, the headers of every answer, and pages for what went wrong.

Everything is escaped unless it is made by ``words.py`` or ``charts.py``; nothing in a page runs but the one script that
is served from here.
"""

from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from jinja2 import Environment, PackageLoader, StrictUndefined

from worker.console import words
from worker.console.access import VISITOR, Access, Handler
from worker.core.errors import (
    AdminFailed,
    BrokerRefused,
    ConnectionLost,
    JournalOutdated,
    JournalUnavailable,
    QueueUnusable,
    UsageError,
    WorkerError,
)
from worker.core.masking import mask_text
from worker.ports import wall_us

log = structlog.get_logger(__name__)

NAME: Final = web.RequestKey("page", str)
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with it browsers send forms with the origin "null", which is refused.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Server": "order-worker",
}
STATIC: Final = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Pages:
    """Makes pages. ``queue`` is the dead-letter queue that the console is about."""

    def __init__(self, access: Access, *, queue: str) -> None:
        self._access = access
        self._environment = Environment(
            loader=PackageLoader("worker.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "number": words.number,
            "seconds": words.seconds,
            "clock": words.clock,
            "value": words.value,
            "changes": words.changes,
            "urlencode": words.in_address,
            "line": words.on_one_line,
            "detail": words.detail,
            "micros": words.micros,
        }
        folder = files("worker.console").joinpath("static")
        self._static = {name: folder.joinpath(name).read_bytes() for name in STATIC}
        stamp = sha256(b"".join(self._static.values())).hexdigest()[:12]
        self._environment.globals |= {
            "queue": queue,
            "stamp": stamp,
            "plural": words.plural,
            "program": version("order-update-worker"),
        }

    def page(
        self, request: web.Request, template: str, status: int = 200, /, *, title: str, **told: object
    ) -> web.Response:
        """The page of this template. ``title`` is its heading, too."""
        text = self.fragment(request, template, title=title, **told)
        return web.Response(text=text, content_type="text/html", status=status)

    def fragment(self, request: web.Request, template: str, /, **told: object) -> str:
        """A part of a page, for pages that are alive."""
        text = self._environment.get_template(template).render(**self._common(request), **told)
        # Foreign texts may hold lone surrogates, which no answer can, and NUL, which no page may.
        return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\N{REPLACEMENT CHARACTER}")

    def static(self, name: str) -> web.Response:
        """One of our own files."""
        if name not in self._static:
            raise web.HTTPNotFound
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return web.Response(body=self._static[name], content_type=STATIC[name], charset="utf-8", headers=headers)

    def _common(self, request: web.Request) -> dict[str, Any]:
        visitor = request.get(VISITOR)
        now_us = wall_us()
        return {
            "person": None if visitor is None else visitor.person,
            "session": None if visitor is None else visitor.session,
            "form_token": self._access.sessions.form_token("login" if visitor is None else visitor.subject),
            "operates": visitor is not None and visitor.person.operates,
            "place": request.path,
            "now_us": now_us,
            "when": lambda micros: words.moment(micros, now_us),
        }

    # -- what every answer has ----------------------------------------------------------------------------------------

    async def prepare(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Headers of every answer, right before it goes."""
        for name, text in HEADERS.items():
            response.headers[name] = text
        response.headers.setdefault("Cache-Control", "no-store")
        if self._access.is_encrypted:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"

    # -- what went wrong ----------------------------------------------------------------------------------------------

    def middleware(self) -> Middleware:
        """Errors become pages that say what to do; never a traceback."""

        @web.middleware
        async def tell(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except web.HTTPException as error:
                if error.status < 400:
                    raise
                return self._told(request, error.status, error.text or error.reason, headers=error.headers)
            except WorkerError as error:
                status, title, advice = _explained(error)
                return self._told(request, status, mask_text(str(error)), title=title, advice=advice)
            except Exception:  # the outermost boundary of a request
                log.exception("console.failed", place=request.path)
                return self._told(request, 500, "a fault of this program; its log has the details")

        return tell

    def _told(
        self,
        request: web.Request,
        status: int,
        text: str,
        *,
        title: str = "",
        advice: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        if "application/json" in request.headers.get("Accept", ""):
            return web.json_response({"error": text, "advice": advice}, status=status)
        title = title or _TITLES.get(status, "That did not work")
        answer = self.page(request, "error.html", status, title=title, text=text, advice=advice, status=status)
        for name in ("Retry-After", "Allow"):
            if headers is not None and name in headers:
                answer.headers[name] = headers[name]
        return answer


_TITLES: Final = {
    400: "That cannot be understood",
    401: "Log in first",
    403: "That is not allowed",
    404: "There is no such thing here",
    405: "That is not done this way",
    409: "Not now",
    413: "That is too large",
    421: "Reached by a wrong name",
    429: "Too many tries",
    500: "Something broke",
}


def _explained(error: WorkerError) -> tuple[int, str, str]:
    """Status, heading, and what to do."""
    match error:
        case JournalUnavailable():
            advice = "Nothing is lost: workers wait for it as well. This page works again when JOURNAL_URL answers."
            return 503, "The journal does not answer", advice
        case JournalOutdated():
            return 503, "The journal needs an upgrade", "Upgrade it when all workers have this version, or a later one."
        case ConnectionLost():
            advice = (
                "What the console had in hand went back to its place. Try again when the broker answers (AMQP_URL)."
            )
            return 503, "The broker does not answer", advice
        case BrokerRefused():
            return 503, "The broker refuses", "The user in AMQP_URL needs to read the dead-letter queue and lock it."
        case QueueUnusable():
            return (
                409,
                "The dead-letter queue cannot be taken now",
                "Reading does not need it: the index is always there.",
            )
        case AdminFailed():
            return 502, "A worker does not answer", "Look at CONSOLE_WORKERS, and whether the worker runs."
        case UsageError():
            return 400, "That cannot be done", ""
        case _:
            return 500, "Something broke", ""
