"""What must not be shown: passwords in addresses, tokens and secrets in texts.

Texts come from people, libraries and the platform, and end in logs, error messages and headers. Masking errs on the
side of hiding: a mask too many costs a reader a guess, one too few costs a password.
"""

import re
from collections.abc import Collection

MASK = "***"

# A password may hold "/", "@" or "#" although it should be percent-encoded, so everything up to the last "@" is taken
# for it; a new "://" or a blank ends the address, which keeps lists of addresses readable.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@]*):(?:(?!://)\S)*@", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer)\s+[\w.~+/=-]{4,}", re.IGNORECASE)
_KEY = r"[a-z_-]*(?:token|secret|password|passwd|authorization|cookie)"
_PAIR = re.compile(
    rf"""((?P<quote>\\*["']){_KEY}(?P=quote)\s*:\s*|\b{_KEY}=)(?:\\*"[^"]*"|\\*'[^']*'|[^\s,&;)}}]+)""",
    re.IGNORECASE,
)
_SECRET_KEY = re.compile(rf"^{_KEY}$", re.IGNORECASE)


def mask_text(text: str, secrets: Collection[str] = ()) -> str:
    """``text`` without passwords of addresses, bearer tokens, ``secret=...`` pairs and the given ``secrets``."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = _ADDRESS.sub(rf"\1:{MASK}@", text)
    text = _PAIR.sub(rf"\1{MASK}", text)
    return _BEARER.sub(rf"\1 {MASK}", text)


def is_secret_key(key: str) -> bool:
    """True for names whose value is never shown: ``access_token``, ``client_secret``, ``Authorization``, ..."""
    return _SECRET_KEY.match(key) is not None
