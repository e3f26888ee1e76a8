"""What the platform said: one verdict for the call, one for each order in it. Pure tables over a ``CallReport``.

The rows are those of the project's verdict table, first match wins. Replies are matched by order id (integer or numeric
string), never by position; an error path that names a position is only a hint and never condemns anybody. Which codes
and texts mean "throttled", "not authorised" or "try later" is data (``Rules``), because the platform documents none of
them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, assert_never

from worker.core.blame import blamed_by, fit_for_people, integer, told, values_of
from worker.core.excerpt import excerpt
from worker.core.faults import Fault, contains, faults_of, matches
from worker.core.model import Fields, Scalar
from worker.core.report import CallReport, CredentialsRefused, Insecure, NoAnswer, NotSent, Reply
from worker.core.usualreply import deviating, shown_once

CONFIGURATION_STATUSES = frozenset({404, 405, 406, 407, 415})
UNKNOWN_STATUSES = frozenset({500, 502, 504})
UNAVAILABLE_STATUSES = frozenset({408, 425})


class Call(StrEnum):
    """Verdict on a whole call."""

    ANSWERED = "answered"
    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    AUTH = "auth"
    CONFIGURATION = "configuration"
    UNKNOWN = "unknown"
    REFUSED = "refused"


class Item(StrEnum):
    """Verdict on one order of an answered call."""

    APPLIED = "applied"
    REMAPPED = "remapped"
    TERMINAL = "terminal"
    BLAMED = "blamed"
    INNOCENT = "innocent"
    UNCONFIRMED = "unconfirmed"


@dataclass(slots=True, frozen=True, kw_only=True)
class Rules:
    """Texts (compared in lower case, anywhere in a message), error codes and statuses with a special meaning.

    Defaults: the platform answers its documented REST rate limit with HTTP 400 and a text, PHP GraphQL servers mask
    faults as "Internal server error"; everything else here is an assumption and meant to be extended by ``RULES_FILE``.
    """

    throttle_statuses: frozenset[int] = frozenset({429})
    throttle_texts: tuple[str, ...] = (
        "rate limit",
        "too many requests",
        "throttl",
        "requests per hour",
        "quota exceeded",
    )
    throttle_codes: frozenset[str] = frozenset({"THROTTLED", "RATE_LIMITED", "TOO_MANY_REQUESTS"})
    transient_texts: tuple[str, ...] = (
        "internal server error",
        "try again",
        "temporarily",
        "timed out",
        "deadlock",
        "lock wait timeout",
    )
    transient_codes: frozenset[str] = frozenset({"INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT"})
    auth_texts: tuple[str, ...] = (
        "authentication required",
        "unauthenticated",
        "unauthorised transaction",
        "unauthorized transaction",
        "invalid token",
        "token has expired",
        "token expired",
        "access token",
    )
    auth_codes: frozenset[str] = frozenset({"UNAUTHENTICATED"})
    terminal_statuses: frozenset[int] = frozenset({64, 128, 516})
    successors: Mapping[int, frozenset[int]] = field(default_factory=lambda: {8: frozenset({64, 516})})


@dataclass(slots=True, frozen=True, kw_only=True)
class ItemVerdict:
    """Verdict on one order, with what the platform said of it. ``silent``: it has no error to say at all."""

    item: Item
    detail: str = ""
    transient: bool = False
    silent: bool = False


AS_REQUESTED: Final = ItemVerdict(item=Item.APPLIED)
"""The verdict on nearly every order: one for all of them."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Judgement:
    """Verdict on a call. ``items`` has every requested order when the call was answered, else none.

    ``all_applied`` says that each of them is plainly APPLIED: nobody has to look at them one by one.
    ``transient`` says that a refusal sounds like the platform's own trouble; ``status`` is 0 without an HTTP answer.
    """

    call: Call
    detail: str = ""
    status: int = 0
    retry_after: str | None = None
    transient: bool = False
    items: Mapping[int, ItemVerdict] = field(default_factory=dict)
    all_applied: bool = False


def judge(report: CallReport, requested: Mapping[int, Fields], rules: Rules) -> Judgement:
    """Give every possible report exactly one verdict. ``requested`` holds the fields that were sent, by order id."""
    match report:
        case Reply():
            return _judge_reply(report, requested, rules)
        case NotSent(cause=cause):
            return Judgement(call=Call.UNAVAILABLE, detail=excerpt(cause))
        case Insecure(cause=cause):
            return Judgement(call=Call.CONFIGURATION, detail=excerpt(f"TLS: {cause}"))
        case CredentialsRefused(cause=cause):
            return Judgement(call=Call.AUTH, detail=excerpt(cause))
        case NoAnswer(cause=cause):
            return Judgement(call=Call.UNKNOWN, detail=excerpt(cause))
        case _:
            assert_never(report)


def _judge_reply(reply: Reply, requested: Mapping[int, Fields], rules: Rules) -> Judgement:
    payload: Mapping[str, Any] = reply.payload if isinstance(reply.payload, dict) else {}
    faults = faults_of(payload)
    general = [fault for fault in faults if len(fault.path) < 3]
    call = _call_verdict(reply, general, rules)
    items = _list_of(payload)
    if call is Call.REFUSED and 200 <= reply.status < 300 and items is not None:
        verdicts = _judge_items(items, faults, requested, rules)
        return Judgement(
            call=Call.ANSWERED,
            status=reply.status,
            items=verdicts,
            all_applied=list(verdicts.values()).count(AS_REQUESTED) == len(verdicts),
        )
    return Judgement(
        call=call,
        status=reply.status,
        retry_after=reply.retry_after,
        detail=excerpt(_explain(reply, faults, requested)),
        transient=any(matches(fault, rules.transient_texts, rules.transient_codes) for fault in faults),
    )


def _call_verdict(reply: Reply, faults: Sequence[Fault], rules: Rules) -> Call:
    """The rows of the verdict table for replies, top to bottom. REFUSED for a 2xx still means: look for a list."""
    status = reply.status
    if status in rules.throttle_statuses or (status == 503 and reply.retry_after is not None):
        return Call.THROTTLED
    if any(matches(fault, rules.throttle_texts, rules.throttle_codes) for fault in faults):
        return Call.THROTTLED
    if status >= 400 and not faults and contains(reply.excerpt, rules.throttle_texts):
        return Call.THROTTLED
    if status == 401 or any(matches(fault, rules.auth_texts, rules.auth_codes) for fault in faults):
        return Call.AUTH
    if 300 <= status < 400 or status in CONFIGURATION_STATUSES:
        return Call.CONFIGURATION
    if status in UNKNOWN_STATUSES or (status < 300 and not reply.readable):
        return Call.UNKNOWN
    if status in UNAVAILABLE_STATUSES or status >= 500:
        return Call.UNAVAILABLE
    return Call.REFUSED


def _judge_items(
    items: Sequence[Any], faults: Sequence[Fault], requested: Mapping[int, Fields], rules: Rules
) -> dict[int, ItemVerdict]:
    shown = None if faults else shown_once(items, requested)
    if shown is None:
        return _judge_each(items, faults, requested, rules)
    verdicts = dict.fromkeys(requested, AS_REQUESTED)
    for order_id, item in deviating(requested, shown).items():
        verdict = _judge_item((item,), requested[order_id], None, anyone=False, rules=rules)
        verdicts[order_id] = _silent(verdict) if verdict.item is Item.UNCONFIRMED else verdict
    return verdicts


def _judge_each(
    items: Sequence[Any], faults: Sequence[Fault], requested: Mapping[int, Fields], rules: Rules
) -> dict[int, ItemVerdict]:
    shown: dict[int, list[Mapping[str, Any]]] = {}
    for item in items:
        if isinstance(item, dict) and (order_id := integer(item.get("id"))) is not None:
            shown.setdefault(order_id, []).append(item)
    blamed = blamed_by(faults, items, requested, shown)
    verdicts = {
        order_id: _judge_item(shown.get(order_id, []), fields, blamed.get(order_id), anyone=bool(blamed), rules=rules)
        for order_id, fields in requested.items()
    }
    if not faults:
        for order_id in [of for of, verdict in verdicts.items() if verdict.item is Item.UNCONFIRMED]:
            verdicts[order_id] = _silent(verdicts[order_id])
    for order_id, said in told(blamed, requested).items():
        verdicts[order_id] = replace(verdicts[order_id], detail=said)
    return verdicts


def _judge_item(
    shown: Sequence[Mapping[str, Any]], fields: Fields, fault: Fault | None, *, anyone: bool, rules: Rules
) -> ItemVerdict:
    if fault is None and len(shown) == 1:
        item = shown[0]
        if "status" not in fields or _status_fits(fields["status"], integer(item.get("status")), rules):
            same = all(item.get(name) == value for name, value in fields.items() if name != "status")
            return AS_REQUESTED if same else ItemVerdict(item=Item.REMAPPED)
        status = integer(item.get("status"))
        if status in rules.terminal_statuses:
            return ItemVerdict(item=Item.TERMINAL, detail=f"the platform shows the terminal status {status}")
        return ItemVerdict(
            item=Item.UNCONFIRMED, detail=f"the platform shows status {status} instead of the requested one"
        )
    if fault is not None:
        transient = matches(fault, rules.transient_texts, rules.transient_codes) or matches(
            fault, rules.throttle_texts, rules.throttle_codes
        )
        return ItemVerdict(item=Item.BLAMED, transient=transient)
    if anyone and not shown:
        return ItemVerdict(item=Item.INNOCENT, detail="missing in a reply that blames other orders")
    return ItemVerdict(
        item=Item.UNCONFIRMED, detail="missing in the reply" if not shown else "more than once in the reply"
    )


def _silent(verdict: ItemVerdict) -> ItemVerdict:
    return replace(verdict, silent=True)


def _status_fits(wanted: Scalar, got: int | None, rules: Rules) -> bool:
    if got is None or wanted is None:
        return got is wanted
    return got == wanted or (isinstance(wanted, int) and got in rules.successors.get(wanted, ()))


def _list_of(payload: Mapping[str, Any]) -> list[Any] | None:
    data = payload.get("data")
    core = data.get("core") if isinstance(data, dict) else None
    items = core.get("updateOrders") if isinstance(core, dict) else None
    return items if isinstance(items, list) else None


def _explain(reply: Reply, faults: Sequence[Fault], requested: Mapping[int, Fields]) -> str:
    said = fit_for_people(faults[0].message, values_of(requested)) if faults else reply.excerpt
    return f"HTTP {reply.status}: {said}" if said else f"HTTP {reply.status}"
