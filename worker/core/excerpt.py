"""Foreign text made fit for people: short, on one line, and without secrets.

Whatever a platform answers may end in a log line or a header of a dead letter, and error pages like to echo the
request. So an adapter keeps nothing of a foreign text before it went through here (promise: secrets and payloads stay
out of logs, metrics, errors and headers).
"""

import html
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from worker.core.masking import MASK, mask_text

EXCERPT_CHARS = 200
"""What one line of a log or a header can spare for foreign words."""

_WINDOW_CHARS = 8192
_MARKUP = re.compile(r"<[^<>]*>")
_RULES = (
    (re.compile(r"(?i)\b(basic)\s+[\w.~+/=-]{4,}"), rf"\1 {MASK}"),
    (re.compile(r"[\w.%+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+"), MASK),
    # Tokens, keys and digests; the longest word that people need, the scope, has 27 characters.
    (re.compile(r"[\w.~+/=-]{32,}"), MASK),
)


def excerpt(text: str, *, secrets: Iterable[str] = (), limit: int = EXCERPT_CHARS) -> str:
    """The beginning of ``text``, at most ``limit`` characters, without markup, secrets, e-mail addresses, tokens.

    ``secrets`` are literal texts that must not appear, also not in their URL, HTML or JSON spelling; empty ones are
    ignored. Only the first 8192 characters are looked at, so the work is bounded whatever was answered.
    """
    spellings = sorted({spelling for secret in secrets for spelling in _spellings(secret)}, key=len, reverse=True)
    line = mask_text(_without(text, spellings))
    for pattern, substitute in _RULES:
        line = pattern.sub(substitute, line)
    line = _MARKUP.sub(" ", line)
    line = " ".join("".join(char if char.isprintable() else " " for char in line).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _without(text: str, spellings: list[str]) -> str:
    window = text[:_WINDOW_CHARS]
    for spelling in spellings:
        window = window.replace(spelling, MASK)
    if len(text) <= _WINDOW_CHARS or not spellings:
        return window
    # The window may end inside a secret: its first half would not be recognised, so the end goes.
    return window[: -len(spellings[0])]


def _spellings(secret: str) -> Iterator[str]:
    if not secret:
        return
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), html.escape(secret))
    yield secret.replace("/", "\\/")  # how PHP writes JSON
