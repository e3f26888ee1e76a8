"""Bodies that the stand-in answers with when it does not answer with GraphQL."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from aiohttp import web

HTML = "<!DOCTYPE html>\n<html><head><title>{status}</title></head><body><h1>{status} {reason}</h1></body></html>\n"

# Published by the platform for its REST API: 100 invalid JSON, 401 unauthorised transaction, 0 "see message".
# The number of the rate limit is not published: 9429 is ours.
INVALID_JSON, UNAUTHORISED, SEE_MESSAGE, RATE_LIMITED = 100, 401, 0, 9429


class RestError(Exception):
    """The call is answered by an HTTP error with the error body of the platform's REST API."""

    def __init__(self, status: int, message: str, code: int = SEE_MESSAGE) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code

    def response(self) -> web.Response:
        """The HTTP answer."""
        return rest_error(self.status, self.message, self.code)


def read_json(body: bytes) -> Any:
    """Decode JSON as strictly as other languages do: Python alone would take NaN. Raises ValueError."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def json_reply(payload: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON body without spaces, as PHP's ``json_encode`` writes it."""
    body = json.dumps(payload, separators=(",", ":"))
    return web.Response(text=body, status=status, content_type="application/json", headers=headers)


def rest_error(status: int, message: str, code: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """The error body of the platform's REST API (seen in third-party documents of version 2.3)."""
    return json_reply({"error": {"message": message, "code": code}}, status, headers)


def html_page(status: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """What a proxy in front of the platform would answer."""
    page = HTML.format(status=status, reason=reason)
    return web.Response(text=page, status=status, content_type="text/html", headers=headers)


def http_date(seconds_from_now: float) -> str:
    """An HTTP date so many seconds from now; HTTP dates have whole seconds, so it is rounded up."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds_from_now)
    return format_datetime(moment.replace(microsecond=0) + timedelta(seconds=1), usegmt=True)
