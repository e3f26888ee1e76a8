"""OAuth: the token endpoint (client credentials only) and the tokens it gave out.

The reply is the documented one. The errors are those of league/oauth2-server, whose replies have the same keys in the
same order: an inference, not the platform's word.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from worker.simulator.options import Options
from worker.simulator.replies import json_reply

REQUIRED = ("grant_type", "client_id", "client_secret", "scope")
FORM = "application/x-www-form-urlencoded"


@dataclass(slots=True, frozen=True)
class Grant:
    """What a token stands for."""

    client: str
    scopes: frozenset[str]
    expires_s: float


class Tokens:
    """Opaque tokens, each valid until its lifetime is over or it is revoked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._grants: dict[str, Grant] = {}
        self.issued = 0
        self.refused = 0

    def issue(self, client: str, scopes: frozenset[str], lifetime_s: float) -> str:
        """A new token; earlier ones stay valid. Expired ones are forgotten here, so that they do not pile up."""
        now = self._clock()
        self._grants = {token: grant for token, grant in self._grants.items() if grant.expires_s > now}
        token = secrets.token_urlsafe(32)
        self._grants[token] = Grant(client, scopes, now + lifetime_s)
        self.issued += 1
        return token

    def grant(self, authorization: str | None) -> Grant | None:
        """What the ``Authorization`` header entitles to; None if it is missing, unknown or expired."""
        scheme, _, token = (authorization or "").partition(" ")
        grant = self._grants.get(token.strip())
        if scheme.lower() != "bearer" or grant is None or grant.expires_s <= self._clock():
            return None
        return grant

    def revoke_all(self) -> int:
        """Make every token unknown at once; returns how many there were."""
        count = len(self._grants)
        self._grants.clear()
        return count


async def answer(request: web.Request, options: Options, tokens: Tokens) -> web.Response:
    """Answer ``POST /token``: exactly ``token_type``, ``expires_in``, ``access_token``, or an OAuth error."""
    form = await request.post() if request.content_type == FORM else {}
    given = {name: str(form[name]) for name in REQUIRED if name in form}
    refusal = _refusal(given, request.content_type, options)
    if refusal is not None:
        tokens.refused += 1
        return refusal
    token = tokens.issue(given["client_id"], _granted(given["scope"], options), options.token_lifetime_s)
    reply = {"token_type": "Bearer", "expires_in": int(options.token_lifetime_s), "access_token": token}
    return json_reply(reply, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})


def _refusal(given: dict[str, str], content_type: str, options: Options) -> web.Response | None:
    if content_type != FORM:
        return _error(400, "invalid_request", "The request is missing a required parameter", f"Send a form as {FORM}")
    missing = [name for name in REQUIRED if name not in given]
    if missing:
        hint = f"Check the `{missing[0]}` parameter"
        return _error(400, "invalid_request", "The request is missing a required parameter", hint)
    if given["grant_type"] != "client_credentials":
        text = "The authorization grant type is not supported by the authorization server."
        return _error(400, "unsupported_grant_type", text, "Check that all required parameters have been provided")
    if not _is_client(given["client_id"], given["client_secret"], options):
        return _error(401, "invalid_client", "Client authentication failed", None)
    foreign = sorted(set(given["scope"].split()) - set(options.scopes))
    if foreign:
        hint = f"Check the `{foreign[0]}` scope"
        return _error(400, "invalid_scope", "The requested scope is invalid, unknown, or malformed", hint)
    return None


def _is_client(client_id: str, client_secret: str, options: Options) -> bool:
    same_id = secrets.compare_digest(client_id.encode(), options.client_id.encode())
    return secrets.compare_digest(client_secret.encode(), options.client_secret.encode()) and same_id


def _granted(scope: str, options: Options) -> frozenset[str]:
    if scope.split() or options.blank_scope == "none":
        return frozenset(scope.split())
    return frozenset(options.scopes)


def _error(status: int, error: str, text: str, hint: str | None) -> web.Response:
    body = {"error": error, "error_description": text}
    if hint is not None:
        body["hint"] = hint
    headers = {"WWW-Authenticate": 'Basic realm="OAuth"'} if status == 401 else None
    return json_reply({**body, "message": text}, status, headers)
