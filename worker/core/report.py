"""What a call to the platform reported, before anybody judged it. The adapters make these values, ``verdict.py``
reads them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, frozen=True, kw_only=True)
class Reply:
    """An HTTP answer of the platform, as far as it could be read.

    ``payload`` is the decoded JSON body, ``readable`` False where the body was cut off, too large or no JSON.
    ``excerpt`` is a short, masked piece of the body for people; it never holds a token.
    """

    status: int
    payload: Any = field(default=None, repr=False)
    readable: bool = True
    retry_after: str | None = None
    excerpt: str = ""


@dataclass(slots=True, frozen=True, kw_only=True)
class NotSent:
    """The request certainly did not reach the platform (refused, DNS, no token to be had)."""

    cause: str


@dataclass(slots=True, frozen=True, kw_only=True)
class NoAnswer:
    """The request was (perhaps) sent, and no whole answer came: timeout, reset, end of stream."""

    cause: str


@dataclass(slots=True, frozen=True, kw_only=True)
class Insecure:
    """TLS failed: wrong certificate, name or protocol. Nothing was sent; a person has to look."""

    cause: str


@dataclass(slots=True, frozen=True, kw_only=True)
class CredentialsRefused:
    """The token endpoint refuses our client, secret or scope. Nothing was sent."""

    cause: str


CallReport = Reply | NotSent | NoAnswer | Insecure | CredentialsRefused
