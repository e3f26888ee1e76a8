"""The journal's row of an order, and what claims and records do to it.

Two workers may hold the same order at once, and a call that was given up may execute late; no broker prevents either.
So the row of an order has, beside the greatest applied version and value of each field,

- a *revision*, raised by every claim: whose revision has moved was not alone;
- a *claim* (worker, expiry): a call is or may be under way. The record of a known outcome clears it, if the revision is
  still the one of that claim; an unknown outcome leaves it standing, and so does a crash;
- an *echo* that is owed: whoever applied something over another's claim sends the greatest values once more after that
  claim's expiry, because the other call may have been executed last. So does a worker whose own call may be executed
  after its claim's expiry: one that was frozen, say. Others may have sent their echo already.

``claimed`` and ``recorded`` are the whole of the rules. Every journal follows them: in memory by calling them, in SQL
by one statement for the first, and for the second by calling it under the lock of the row, or beforehand and writing
only where the row is still the one that it was called with. All times are wall clock,
microseconds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct, field

from worker.core.history import HistoryRow
from worker.core.values import Stamped, Values

LATE_S = 30.0
"""The latest that the platform may execute a call after we gave it up (design, Promises)."""
FAR_US = 2**63 - 1


class Claim(NamedTuple):
    """A call of ``worker`` is or may be under way until ``expires_us``."""

    worker: str
    expires_us: int


class OrderRow(Struct, frozen=True, kw_only=True, gc=False):
    """What a claim hands out: the order as it is, under the new ``revision``.

    ``standing`` is the claim that was there before and never cleared: another worker's, an expired one, one with an
    unknown outcome, or an older one of our own. ``echo_us`` says since when an echo is owed. ``expires_us``: when the
    claim that was taken now expires.
    """

    values: Values
    revision: int
    standing: Claim | None = None
    echo_us: int | None = None
    expires_us: int = FAR_US


class OrderOutcome(Struct, frozen=True, kw_only=True, gc=False):
    """What became of one claimed order in a call.

    ``revision`` is the one its claim handed out. ``known`` is false where the call may still be executed. ``echo_us``:
    an echo is owed from then on. ``echoed_us``: the echo that the claim handed out and that this call was; it is
    cleared, unless somebody noted a later one meanwhile.

    A known outcome clears the claim, and with it what the row knew of the claim before. So whoever found one standing
    owes the echo from its expiry on, even where nothing was applied: nobody else can know any more.
    """

    revision: int
    applied: Values = field(default_factory=dict)
    known: bool = True
    echo_us: int | None = None
    echoed_us: int | None = None


class BatchRecord(Struct, frozen=True, kw_only=True, gc=False):
    """Everything that one batch leaves in the journal, written in one transaction."""

    wall_us: int
    orders: Mapping[int, OrderOutcome] = field(default_factory=dict)
    history: Sequence[HistoryRow] = ()


class StoredOrder(Struct, frozen=True, kw_only=True, gc=False):
    """The row as it is kept."""

    values: Values = field(default_factory=dict)
    revision: int = 0
    claim: Claim | None = None
    echo_us: int | None = None


def claimed(stored: StoredOrder, by: Claim) -> tuple[StoredOrder, OrderRow]:
    """The row after a claim, and what the claimant gets. An expiry never moves backwards."""
    before = stored.claim
    expires_us = by.expires_us if before is None else max(before.expires_us, by.expires_us)
    revision, claim = stored.revision + 1, Claim(by.worker, expires_us)
    return (
        StoredOrder(values=stored.values, revision=revision, claim=claim, echo_us=stored.echo_us),
        OrderRow(
            values=stored.values,
            revision=revision,
            standing=before,
            echo_us=stored.echo_us,
            expires_us=by.expires_us,
        ),
    )


def recorded(stored: StoredOrder, outcome: OrderOutcome) -> StoredOrder:
    """The row after the call, whoever else claimed the order meanwhile."""
    ours = stored.revision == outcome.revision
    return StoredOrder(
        values=merged(stored.values, outcome.applied),
        revision=stored.revision,
        claim=None if ours and outcome.known else stored.claim,
        echo_us=owed(stored.echo_us, outcome),
    )


def contested(stored: StoredOrder, outcome: OrderOutcome) -> bool:
    """Whether somebody claimed the order after the claim of this outcome."""
    return stored.revision != outcome.revision


def merged(known: Values, applied: Values) -> Values:
    """Per field the greater version with its value; of equal ones the known stays."""
    if not known:
        return applied
    if isinstance(known, Stamped) and isinstance(applied, Stamped):
        newer_one, other = (applied, known) if known.version < applied.version else (known, applied)
        if newer_one.fields.keys() >= other.fields.keys():
            return newer_one
    newer = {name: value for name, value in applied.items() if name not in known or known[name][0] < value[0]}
    return {**known, **newer} if newer else known


def owed(stored_us: int | None, outcome: OrderOutcome) -> int | None:
    """Since when an echo is owed after the call, ``stored_us`` being since when it was before."""
    if stored_us is None and outcome.echo_us is None:
        return None
    left = None if stored_us == outcome.echoed_us else stored_us
    if left is None or outcome.echo_us is None:
        return outcome.echo_us if left is None else left
    return max(left, outcome.echo_us)
