"""Sessions as signed cookies, and the tokens in forms that show that a page of ours was there first.

The key is made at the start and kept nowhere, so a restart ends all sessions; and it is mixed with the hash of the
person's token, so taking somebody out of the file, or giving a new token, ends theirs.
"""

import base64
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

LIFETIME_S: Final = 12 * 3600
"""A night shift, and the hand-over after it."""
MOST_ENDED: Final = 10_000
LONGEST: Final = 1024
"""Characters of a cookie that is looked at."""

Clock = Callable[[], float]


@dataclass(slots=True, frozen=True, kw_only=True)
class Session:
    """``ends_at`` is in seconds since 1970."""

    name: str
    number: str
    ends_at: float


class Sessions:
    """Makes and reads them. Nothing is kept but the sessions that were ended before their time."""

    def __init__(self, *, clock: Clock = time.time, lifetime_s: float = LIFETIME_S) -> None:
        self._key = secrets.token_bytes(32)
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._ended: dict[str, float] = {}

    def open(self, name: str, proof: str) -> str:
        """The cookie of a new session."""
        told = {"n": name, "s": secrets.token_urlsafe(18), "e": round(self._clock() + self._lifetime_s)}
        payload = base64.urlsafe_b64encode(json.dumps(told).encode()).decode()
        return f"{payload}.{self._sign('session', payload, proof)}"

    def read(self, cookie: str, proof_of: Callable[[str], str | None]) -> Session | None:
        """The session of this cookie, None where it is none of ours or over. ``proof_of`` knows people by name."""
        payload, _, signature = cookie.partition(".")
        told = _opened(payload) if len(cookie) <= LONGEST else None
        if told is None or (proof := proof_of(told.name)) is None:
            return None
        right = hmac.compare_digest(self._sign("session", payload, proof).encode(), signature.encode())
        now = self._clock()
        return told if right and now < told.ends_at and told.number not in self._ended else None

    def end(self, session: Session) -> None:
        """It is over now, whatever its cookie says."""
        now = self._clock()
        self._ended = {number: until for number, until in self._ended.items() if until > now}
        while len(self._ended) >= MOST_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[session.number] = session.ends_at

    def form_token(self, subject: str) -> str:
        """What forms of this session (or of this person, without sessions) carry."""
        return self._sign("form", subject)

    def is_form_token(self, subject: str, given: str) -> bool:
        """Whether a form carried it."""
        return hmac.compare_digest(self.form_token(subject).encode(), given.encode("utf-8", "surrogatepass"))

    def _sign(self, *parts: str) -> str:
        signed = "\x00".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, signed, sha256).hexdigest()


def _opened(payload: str) -> Session | None:
    try:
        told = json.loads(base64.urlsafe_b64decode(payload.encode()))
        return Session(name=str(told["n"]), number=str(told["s"]), ends_at=float(told["e"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


class Throttle:
    """Slows guessing down: after ``most`` failures from an address within ``span_s``, it is refused until they are old.

    All addresses together have ten times as many. Bounded: addresses without a failure in the span are forgotten.
    """

    def __init__(self, *, most: int = 5, span_s: float = 60.0, clock: Clock = time.monotonic) -> None:
        self._most = most
        self._span_s = span_s
        self._clock = clock
        self._failures: list[tuple[float, str]] = []

    def wait_s(self, address: str) -> float:
        """How long this address has to wait; 0: it may try."""
        now = self._clock()
        self._failures = [each for each in self._failures if each[0] > now - self._span_s]
        own = [at for at, whose in self._failures if whose == address]
        every = [at for at, _ in self._failures]
        waits = [_wait(own, self._most), _wait(every, 10 * self._most)]
        return max(0.0, *(since + self._span_s - now for since in waits if since is not None), 0.0)

    def failed(self, address: str) -> None:
        """One more failure. Beyond the limit nobody may try, so there are never more than the limits allow."""
        self._failures.append((self._clock(), address))


def _wait(failures: list[float], most: int) -> float | None:
    """The failure that has to grow old before another try; None: there is room."""
    return failures[-most] if len(failures) >= most else None
