"""Order statuses of the platform: codes, names and the transitions that make sense.

Codes and names 0-517 are published ("Order status in OMS reports"); 520 and 600 are only seen in other people's
clients, and more names exist whose codes are unknown: an open set, not a bit mask.
"""

from collections.abc import Mapping

DISPATCHED = 8
NEW_ORDER = 1

STATUS_NAMES: Mapping[int, str] = {
    0: "Unknown",
    1: "Received",
    2: "Unused",
    4: "In Production",
    8: "Dispatched",
    32: "QC Query",
    64: "Dispatched (Retailer Notified)",
    128: "Cancelled",
    256: "On Hold",
    512: "Sent to Supplier",
    513: "Received by Supplier",
    515: "Sent to Shipper",
    516: "Received by Shipper",
    517: "Pending Dispatch",
    600: "Consolidating",
}

# Whether the platform enforces any of this is unknown: the table is used with the option transitions=on only.
_FROM_NEW = frozenset({4, 8, 32, 128, 256})
TRANSITIONS: Mapping[int, frozenset[int]] = {
    1: _FROM_NEW,
    512: _FROM_NEW,
    513: _FROM_NEW,
    517: _FROM_NEW,
    4: frozenset({8, 32, 128, 256}),
    32: frozenset({4, 8, 128}),
    256: frozenset({4, 8, 128}),
    8: frozenset({64, 515, 516}),
}


def status_name(code: int) -> str:
    """The published name of a status; ``Unknown`` for a code without one."""
    return STATUS_NAMES.get(code, "Unknown")


def may_follow(current: int, wanted: int) -> bool:
    """Whether ``current`` may become ``wanted`` under the transition rules; staying is always allowed."""
    return wanted == current or wanted in TRANSITIONS.get(current, ())
