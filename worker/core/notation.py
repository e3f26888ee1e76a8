"""How values are written in settings: comma-separated lists, field names with types, addresses.

Everything here raises ValueError with a text that a person can act on. The text never repeats an address, because an
address may hold a password.
"""

import ipaddress
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from worker.core.errors import UsageError
from worker.core.fields import KNOWN_FIELDS, changeable_fields, ignored_fields

V = TypeVar("V")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


def items(text: str) -> tuple[str, ...]:
    """``"a, b,"`` -> ``("a", "b")``."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def extra_fields(text: str) -> dict[str, str]:
    """``"shipping_tracking,weight:number"`` -> ``{"shipping_tracking": "string", "weight": "number"}``, checked."""
    found: dict[str, str] = {}
    for item in items(text):
        name, _, kind = (part.strip() for part in item.partition(":"))
        if name in found:
            raise ValueError(f"{name!r} is named twice")
        found[name] = kind or "string"
    return _checked(found, changeable_fields)


def ignore_fields(text: str) -> tuple[str, ...]:
    """Names of event fields that are kept for people and never sent, checked."""
    return _checked(items(text), lambda names: ignored_fields(names, KNOWN_FIELDS))


def _checked(value: V, check: Callable[[V], object]) -> V:
    try:
        check(value)
    except UsageError as refused:
        raise ValueError(str(refused).partition(": ")[2]) from None
    return value


def broker_urls(text: str) -> tuple[str, ...]:
    """A comma-separated list of ``amqp://`` or ``amqps://`` addresses, at least one."""
    urls = items(text)
    if not urls:
        raise ValueError("at least one address is needed, such as amqp://user:password@host:5672/vhost")
    for number, url in enumerate(urls, start=1):
        _split(url, ("amqp", "amqps"), f"address {number} of {len(urls)}")
    return urls


def web_url(text: str) -> str:
    """One ``http://`` or ``https://`` address without credentials."""
    parts = _split(text, ("http", "https"), "the address")
    if parts.username is not None or parts.password is not None:
        # aiohttp makes an Authorization header of them, which would fight with the bearer token.
        raise ValueError("the address must not hold credentials; use CLIENT_ID and CLIENT_SECRET")
    return text


def management_url(text: str) -> str:
    """One ``http://`` or ``https://`` address that may hold credentials; empty means none."""
    if text:
        _split(text, ("http", "https"), "the address")
    return text


def console_url(text: str) -> str:
    """Scheme, host and port that people type; empty means that of the listening address."""
    if text:
        parts = _split(text, ("http", "https"), "the address")
        if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("the address must be only http:// or https:// with host and port")
    return text.rstrip("/")


def header_name(text: str) -> str:
    """The name of an HTTP header (RFC 9110, 5.6.2); empty means none."""
    if text and _TOKEN.fullmatch(text) is None:
        raise ValueError("is no name of a header, such as X-Forwarded-User")
    return text


def networks(given: tuple[str, ...]) -> tuple[str, ...]:
    """Addresses and networks, such as 127.0.0.1 and 10.0.0.0/8."""
    for each in given:
        try:
            ipaddress.ip_network(each)
        except ValueError:
            raise ValueError(f"{each!r} is no address or network, such as 127.0.0.1 or 10.0.0.0/8") from None
    return given


def journal_url(text: str) -> str:
    """``memory``, ``sqlite:///FILE``, or a ``postgresql://`` address as libpq reads it."""
    if text == "memory":
        return text
    scheme, _, rest = text.partition("://")
    if scheme == "sqlite":
        if not rest.strip("/") or rest[0] != "/" or "?" in rest:
            raise ValueError(
                "name a file: sqlite:///order-worker.db (where the worker is started) or "
                "sqlite:////var/lib/journal.db; without a file there is memory"
            )
    elif scheme not in ("postgresql", "postgres") or not rest or any(char.isspace() for char in rest):
        raise ValueError("use memory, sqlite:///FILE or postgresql://user:password@host/database")
    return text


def broker_name(name: str) -> str:
    """The name of an exchange or queue."""
    # AMQP 0-9-1 names are short strings (255 bytes), of which we append up to 40; "amq." is reserved to the broker.
    if not name or len(name.encode()) > 215 or name.startswith("amq."):
        raise ValueError("needs 1 to 215 bytes and must not start with amq.")
    return name


def ascending(delays: tuple[float, ...]) -> tuple[float, ...]:
    """Delays of retry tiers: each tier is a queue of its own, so equal ones would be one queue."""
    if not delays or any(later <= sooner for sooner, later in pairwise(delays)):
        raise ValueError("needs at least one delay, each longer than the one before it, such as 5,30,120,600")
    return delays


def _split(url: str, schemes: tuple[str, ...], which: str) -> SplitResult:
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            f"{which} cannot be read: is the port a number, and are special characters (and commas) of user and "
            "password percent-encoded?"
        ) from None
    if parts.scheme not in schemes or not host or port == 0 or any(char.isspace() for char in url):
        raise ValueError(f"{which} must be {wanted} followed by a host")
    return parts
