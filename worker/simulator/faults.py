"""Faults: what goes wrong, with which calls. Scripted ones come first, then standing ones, then random ones.

A fault is one flat JSON object: ``kind`` and its parameters say what happens, ``on`` to which endpoint, and one of
these to which calls: ``next`` (the next N calls, queued in the order given; the default, with N = 1), ``standing``
(every call until told otherwise), ``for_s`` (every call for so many seconds), ``rate`` (each call with this
probability, drawn from the option ``seed``, so a run can be repeated).
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import msgspec
from aiohttp import web

from worker.simulator.options import MASKED, NotAllowed, Seconds
from worker.simulator.replies import SEE_MESSAGE, html_page, http_date, json_reply, rest_error

Kind = Literal[
    "status",  # answer `status` with `body`, and Retry-After if given
    "html",  # 200 with an HTML page
    "truncated",  # half of the true reply, whole by its Content-Length
    "cut_short",  # the true reply breaks off in the middle of the body, and the connection ends
    "empty",  # 200, no body
    "null",  # 200, the JSON value null
    "errors",  # 200, GraphQL errors and no data
    "no_data",  # 200, data null without errors
    "partial",  # the second half of the orders is not applied, null, and blamed by error paths
    "masked",  # "Internal server error" as a GraphQL error, data.core.updateOrders null
    "reset_before",  # connection reset, nothing applied
    "reset_after",  # applied, then connection reset
    "hang",  # no answer until the client goes away
    "delay",  # everything is right, only `seconds` late: applied at the end (where=before) or at once (where=after)
    "late",  # connection reset at once, applied `seconds` later
    "refuse",  # stop listening (the control interface stays): for_s or standing
]
TOKEN_KINDS = frozenset(
    {"status", "html", "truncated", "cut_short", "empty", "null", "reset_before", "reset_after", "hang", "delay"}
)
REPLACING_KINDS = frozenset({"status", "html", "empty", "null", "errors", "no_data", "hang"})
PLANS = ("next", "standing", "for_s", "rate")


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What goes wrong, with which calls, and whether the update is ``applied`` all the same (None: by kind)."""

    kind: Kind
    on: Literal["graphql", "token"] = "graphql"
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 500
    body: Literal["rest", "graphql", "html", "empty"] = "rest"
    message: str = ""
    retry_after: int | str | None = None
    retry_after_date_s: Seconds | None = None
    seconds: Seconds = 1.0
    where: Literal["before", "after"] = "before"
    applied: bool | None = None
    next: Annotated[int, msgspec.Meta(ge=1)] | None = None
    standing: bool = False
    for_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None

    @property
    def is_applied(self) -> bool:
        """Whether the update is carried out although the answer is not the true one."""
        if self.applied is not None:
            return self.applied
        return self.kind in ("truncated", "cut_short", "partial", "reset_after", "delay", "late")

    def replacement(self) -> web.Response | None:
        """The answer given instead of the true one; None for faults that leave it or have none."""
        match self.kind:
            case "status":
                return self._status()
            case "html":
                return html_page(200, self.message or "Maintenance")
            case "empty":
                return web.Response(status=200, content_type="application/json")
            case "null":
                return json_reply(None)
            case "errors":
                return json_reply({"errors": [{"message": self.message or MASKED}]})
            case "no_data":
                return json_reply({"data": None})
            case _:
                return None

    def _status(self) -> web.Response:
        reason = web.Response(status=self.status).reason or "Error"
        text, headers = self.message or reason, self._headers()
        match self.body:
            case "rest":
                return rest_error(self.status, text, SEE_MESSAGE, headers)
            case "graphql":
                return json_reply({"errors": [{"message": text}]}, self.status, headers)
            case "html":
                return html_page(self.status, text, headers)
            case "empty":
                return web.Response(status=self.status, headers=headers)

    def _headers(self) -> dict[str, str]:
        if self.retry_after_date_s is not None:
            return {"Retry-After": http_date(self.retry_after_date_s)}
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def read_faults(payload: Any) -> list[Fault]:
    """Faults from a decoded JSON object or list of objects; raises NotAllowed that says what is."""
    try:
        faults = [msgspec.convert(item, Fault) for item in (payload if isinstance(payload, list) else [payload])]
    except msgspec.ValidationError as error:
        raise NotAllowed(str(error), _allowed()) from None
    for fault in faults:
        _check(fault)
    return faults


def _check(fault: Fault) -> None:
    plans = [name for name in PLANS if getattr(fault, name)]
    if len(plans) > 1:
        raise NotAllowed(f"choose one of {', '.join(plans)}", _allowed())
    if fault.kind == "refuse" and not (fault.standing or fault.for_s):
        raise NotAllowed("kind refuse needs standing or for_s: it is no fault of single calls", _allowed())
    if fault.applied is not None and fault.kind not in REPLACING_KINDS:
        raise NotAllowed(f"applied is open for {', '.join(sorted(REPLACING_KINDS))} only", _allowed())
    if fault.on == "token" and fault.kind not in TOKEN_KINDS:
        raise NotAllowed(f"on token these kinds make sense: {', '.join(sorted(TOKEN_KINDS))}", _allowed())


def _allowed() -> dict[str, str]:
    return {
        "kind": " | ".join(get_args(Kind)),
        "on": "graphql | token",
        "status": "200..599 (kind status)",
        "body": "rest | graphql | html | empty (kind status)",
        "message": "text of the error",
        "retry_after": "seconds or any text, sent as it is (kind status)",
        "retry_after_date_s": "sent as an HTTP date so many seconds from now (kind status)",
        "seconds": "0..86400 (kinds delay, late)",
        "where": "before | after applying (kind delay)",
        "applied": "true | false: is the update carried out all the same",
        "next | standing | for_s | rate": "one of: N calls | true | seconds | 0 < probability <= 1; default next 1",
    }


class FaultPlan:
    """Which call gets which fault."""

    def __init__(self, clock: Callable[[], float], seed: int) -> None:
        self._clock = clock
        self._queue: deque[list[Any]] = deque()  # [fault, calls left]
        self._standing: list[tuple[Fault, float | None]] = []
        self._random: list[Fault] = []
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Draw random faults from the start of this seed again."""
        self._chance = random.Random(seed)  # noqa: S311  reproducible faults, nothing secret

    def add(self, fault: Fault) -> None:
        """Plan a fault."""
        if fault.rate:
            self._random.append(fault)
        elif fault.for_s:
            self._standing.append((fault, self._clock() + fault.for_s))
        elif fault.standing:
            self._standing.append((fault, None))
        else:
            self._queue.append([fault, fault.next or 1])

    def clear(self) -> None:
        """Forget all faults."""
        self._queue.clear()
        self._standing.clear()
        self._random.clear()

    def pick(self, on: str) -> Fault | None:
        """The fault of the call that just arrived at endpoint ``on``, if any."""
        return self._scripted(on) or self._lasting(on) or self._drawn(on)

    def as_json(self) -> dict[str, Any]:
        """What is planned, as it is shown under ``/_sim/faults``."""
        now = self._clock()
        return {
            "queue": [{**msgspec.to_builtins(fault), "next": left} for fault, left in self._queue],
            "standing": [
                {**msgspec.to_builtins(fault), "left_s": None if until is None else round(until - now, 3)}
                for fault, until in self._standing
                if until is None or until > now
            ],
            "random": [msgspec.to_builtins(fault) for fault in self._random],
        }

    def _scripted(self, on: str) -> Fault | None:
        for item in self._queue:
            fault: Fault = item[0]
            if fault.on == on:
                item[1] -= 1
                if not item[1]:
                    self._queue.remove(item)
                return fault
        return None

    def _lasting(self, on: str) -> Fault | None:
        now = self._clock()
        self._standing = [(fault, until) for fault, until in self._standing if until is None or until > now]
        return next((fault for fault, _ in self._standing if fault.on == on), None)

    def _drawn(self, on: str) -> Fault | None:
        drawn = (fault for fault in self._random if fault.on == on and self._chance.random() < (fault.rate or 0))
        return next(drawn, None)
