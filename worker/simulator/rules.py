"""What the stand-in thinks of one order of an ``updateOrders`` call. Pure: values in, judgement out."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.simulator.options import Options
from worker.simulator.orders import Values
from worker.simulator.statuses import DISPATCHED, STATUS_NAMES, may_follow

INVALID_STATUS = "Invalid order status"
# Worded after "Invalid item specified, index 0" of the REST API (third-party document).
INVALID = "Invalid order specified, index {index}"

# What may be set without any order being refused or any value being changed.
_HARMLESS = frozenset(
    {"client_id", "client_secret", "scopes", "blank_scope", "token_lifetime_s", "permission_refusal"}
    | {"busy_text", "max_batch", "empty_list", "request_error_status", "shuffle_replies", "numeric_strings"}
    | {"latency_s", "rate_per_hour", "rate_per_day", "seed", "keep_history"}
)
_DEFAULTS = Options()


@dataclass(slots=True, frozen=True)
class Accepted:
    """The order takes these values."""

    order_id: int
    values: Values
    sent: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Refused:
    """The order is refused, with this text."""

    text: str


@dataclass(slots=True, frozen=True)
class Absent:
    """The order is unknown and the option says that nobody is told: a null entry, or (``omitted``) none."""

    omitted: bool


Judgement = Accepted | Refused | Absent


def unknown(index: int, options: Options) -> Judgement:
    """What happens to an order that does not exist or that the client may not see."""
    if options.unknown_orders == "error":
        return Refused(INVALID.format(index=index))
    return Absent(omitted=options.unknown_orders == "omit")


def is_plain(options: Options) -> bool:
    """Whether a known order takes every change as it is sent."""
    return all(
        name in _HARMLESS or getattr(options, name) == getattr(_DEFAULTS, name) for name in Options.__struct_fields__
    )


def judge(order_id: int, current: Values, change: Mapping[str, Any], options: Options) -> Judgement:
    """Whether a known order takes a change (field name to value, without ``id``), and what it says afterwards."""
    text = (
        options.rejected_orders.get(order_id)
        or _rejected_value(change, options)
        or _status_refusal(current, change, options)
    )
    if text:
        return Refused(text)
    values = {name: _stored(name, value, options) for name, value in change.items()}
    values["status"] = _next_status(current.status, change.get("status"), options)
    return Accepted(order_id, current._replace(**values), tuple(change))


def _rejected_value(change: Mapping[str, Any], options: Options) -> str | None:
    for name, texts in options.rejected_values.items():
        if name in change and str(change[name]) in texts:
            return texts[str(change[name])]
    return None


def _status_refusal(current: Values, change: Mapping[str, Any], options: Options) -> str | None:
    wanted = change.get("status")
    if wanted is None:
        return None
    if options.known_statuses_only and wanted not in STATUS_NAMES:
        return INVALID_STATUS
    if options.transitions == "on" and not may_follow(current.status, wanted):
        return INVALID_STATUS
    return None


def _stored(name: str, value: Any, options: Options) -> Any:
    if name in ("shipping_carrier", "shipping_method") and value in options.remap:
        return options.remap[value]
    return one_copy(value)


def one_copy(value: Any) -> Any:
    """Every call brings its own copy of "Royal Mail"; the history would keep them all."""
    return sys.intern(value) if type(value) is str else value


def _next_status(current: int, wanted: int | None, options: Options) -> int:
    """A null status is no status. A terminal order keeps its own, silently: the reply shows it."""
    if wanted is None or (current in options.terminal_statuses and wanted != current):
        return current
    return options.status_after_dispatch if wanted == DISPATCHED else wanted
