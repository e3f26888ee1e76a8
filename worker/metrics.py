"""The table of all metrics, as they appear under ``/metrics``: kind, meaning, labels and every value a label can have.

Labels are closed sets: no order id, message id or address is ever one, so the number of time series is known before.
The figures come from ``core/readings.py``; the README's table is made from this one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from types import MappingProxyType

from worker.core.breaker import Mode
from worker.core.entry import FlushReason
from worker.core.measures import DEAD_REASONS, RESULTS, RETRY_REASONS, CallKind
from worker.core.outage import OutageKind
from worker.core.readings import PREFIX, Labels
from worker.core.verdict import Call
from worker.core.vitals import QueueKind

CONNECTIONS = ("consume", "publish")


class Kind(StrEnum):
    """As Prometheus knows them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(slots=True, frozen=True, kw_only=True)
class Metric:
    """``series`` are all combinations of the labels' values; empty where the values are those of this build."""

    kind: Kind
    meaning: str
    labels: Labels = ()
    series: frozenset[Labels] = frozenset({()})

    def values_of(self, label: str) -> list[str]:
        """Every value that a label can have, in alphabetical order."""
        place = self.labels.index(label)
        return sorted({values[place] for values in self.series})


def _counter(meaning: str, /, **labels: Iterable[str]) -> Metric:
    return _metric(Kind.COUNTER, meaning, **labels)


def _gauge(meaning: str, /, **labels: Iterable[str]) -> Metric:
    return _metric(Kind.GAUGE, meaning, **labels)


def _histogram(meaning: str, /, **labels: Iterable[str]) -> Metric:
    return _metric(Kind.HISTOGRAM, meaning, **labels)


def _metric(kind: Kind, meaning: str, /, **labels: Iterable[str]) -> Metric:
    return Metric(kind=kind, meaning=meaning, labels=tuple(labels), series=_plain(product(*labels.values())))


def _plain(series: Iterable[Iterable[str]]) -> frozenset[Labels]:
    return frozenset(tuple(map(str, values)) for values in series)


_TABLE = {
    # what came, and what became of it
    "deliveries_total": _counter("Messages handed over by the broker, redeliveries included."),
    "events_settled_total": Metric(
        kind=Kind.COUNTER,
        meaning="Deliveries settled. Divided by entries_sent_total: how many events share an entry.",
        labels=("outcome", "reason"),
        series=_plain(RESULTS),
    ),
    "retries_total": _counter("Copies confirmed in a retry queue.", reason=RETRY_REASONS),
    "dead_letters_total": _counter("Copies confirmed in the dead-letter queue.", reason=DEAD_REASONS),
    "event_age_seconds": _histogram(
        "From when an event occurred, or was first seen by a worker, until it was settled as applied.",
        since=("occurred", "first_seen"),
    ),
    "last_applied_timestamp_seconds": _gauge("When an event was settled as applied last; absent before the first."),
    # batches and calls
    "batches_total": _counter(
        "Batches sent, by why they left.", flush=[reason for reason in FlushReason if reason is not FlushReason.CONTROL]
    ),
    "batch_entries": _histogram("Orders in a batch that was sent."),
    "entries_sent_total": _counter("Orders sent in batches, each time they were."),
    "entries_remapped_total": _counter("Orders applied where the platform shows other values than were sent."),
    "calls_total": _counter("Calls to the platform, by what for and by the verdict.", kind=CallKind, result=Call),
    "call_duration_seconds": _histogram("How long a call took, a fresh token included where one was needed."),
    "calls_in_flight": _gauge("Calls under way."),
    "calls_allowed": _gauge("Calls that may be under way, as the platform bears them; MAX_IN_FLIGHT at most."),
    "call_budget": _gauge("Calls allowed in an hour; absent without RATE_PER_HOUR or RATE_PER_DAY."),
    "call_budget_left": _gauge("Calls of that budget that are left in the current hour; absent without one."),
    "token_age_seconds": _gauge("Age of the access token; absent without one."),
    # what waits
    "unsettled_deliveries": _gauge("Deliveries in memory that are not settled."),
    "oldest_unsettled_age_seconds": _gauge("How long the oldest of them has been here; 0 without one."),
    "waiting_entries": _gauge("Orders that wait for a call."),
    "queue_messages": _gauge(
        "Messages in the queues at the broker (unacked: as its management API has it, absent without MANAGEMENT_URL); "
        "absent where the broker did not say in the last 30 s.",
        queue=QueueKind,
        state=("ready", "unacked"),
    ),
    # how it is
    "ready": _gauge("1 where /readyz says 200."),
    "consuming": _gauge("1 while the broker has a consumer of this worker, active or standing by."),
    "fast_lane": _gauge(
        "1 where deliveries are taken from the connection in bulk; 0 where they come the AMQP library's way, or none."
    ),
    "broker_connected": _gauge(
        "1 while the connection stands; a lost one for copies is dialled again when there is a copy to place.",
        connection=CONNECTIONS,
    ),
    "breaker_state": _gauge("1 for the current state of the way to the platform.", state=Mode),
    "paused": _gauge("1 for the cause why no call starts now.", cause=OutageKind),
    "draining": _gauge("1 once the worker was asked to stop."),
    "storm_guard_tripped": _gauge("1 while this worker's storm guard waits for a person."),
    "storm_guard_dead_ratio": _gauge("Share of dead letters among the recent decisions, 0 to 1."),
    "journal_up": _gauge("1 while the journal answers."),
    "event_loop_lag_seconds": _gauge("How late the event loop came at most in the last minute."),
    "start_time_seconds": _gauge("When this process started, in seconds since 1970."),
    "build_info": Metric(
        kind=Kind.INFO,
        meaning="1, with the versions of Python and of the worker.",
        labels=("python", "version"),
        series=frozenset(),
    ),
}

METRICS: Mapping[str, Metric] = MappingProxyType({PREFIX + name: metric for name, metric in _TABLE.items()})
