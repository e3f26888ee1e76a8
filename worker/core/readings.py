"""The figures of a worker by the names of its metrics: what was counted, and one look at how it is.

Names, kinds and label sets are in the table ``METRICS`` (``worker/metrics.py``); a test holds the two against each
other. What is not known at the moment is absent, never 0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from worker.core.breaker import Mode
from worker.core.entry import FlushReason
from worker.core.measures import (
    DEAD_REASONS,
    NO_REASON,
    RESULTS,
    RETRY_REASONS,
    CallKind,
    Histogram,
    Measures,
    Outcome,
)
from worker.core.outage import OutageKind
from worker.core.readiness import Activity
from worker.core.verdict import Call
from worker.core.vitals import Depths, Vitals

PREFIX: Final = "order_worker_"
Labels = tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Reading:
    """One metric now: a number, or a histogram, for each combination of its labels' values."""

    name: str
    values: Mapping[Labels, float | Histogram]


def readings(measures: Measures, vitals: Vitals) -> list[Reading]:
    """Everything that is known now."""
    return [
        Reading(PREFIX + name, values)
        for name, values in (*_counted(measures, vitals.activity), *_seen(measures, vitals))
    ]


_Named = tuple[str, Mapping[Labels, float | Histogram]]


def _one(value: float) -> Mapping[Labels, float]:
    return {(): float(value)}


def _counted(measures: Measures, activity: Activity) -> Iterator[_Named]:
    """Counters and histograms. Every combination of labels is there from the start, so that a first one is a rise."""
    outcomes = measures.outcomes
    settled: dict[Labels, float] = {key: outcomes[key] for key in RESULTS}
    settled[Outcome.RELEASED, NO_REASON] = activity.counts.get("released", 0)
    yield "deliveries_total", _one(activity.counts.get("delivered", 0))
    yield "events_settled_total", settled
    yield "retries_total", {(reason,): outcomes[Outcome.RETRIED, reason] for reason in RETRY_REASONS}
    yield "dead_letters_total", {(reason,): outcomes[Outcome.DEAD, reason] for reason in DEAD_REASONS}
    yield (
        "batches_total",
        {(reason,): measures.batches[reason] for reason in FlushReason if reason is not FlushReason.CONTROL},
    )
    yield "entries_sent_total", _one(activity.counts.get("sent", 0))
    yield "entries_remapped_total", _one(activity.counts.get("remapped", 0))
    yield "calls_total", {(kind, call): measures.calls[kind, call] for kind in CallKind for call in Call}
    yield "batch_entries", {(): measures.entries}
    yield "call_duration_seconds", {(): measures.call_s}
    yield (
        "event_age_seconds",
        {("occurred",): measures.age_occurred_s, ("first_seen",): measures.age_first_seen_s},
    )


def _seen(measures: Measures, vitals: Vitals) -> Iterator[_Named]:
    yield from _of_the_pipeline(vitals.activity)
    yield from _of_the_process(vitals)
    if vitals.token_age_s is not None:
        yield "token_age_seconds", _one(vitals.token_age_s)
    if measures.last_applied_us is not None:
        yield "last_applied_timestamp_seconds", _one(measures.last_applied_us / 1_000_000)
    if depths := _depths(vitals.depths):
        yield "queue_messages", depths


def _of_the_pipeline(activity: Activity) -> Iterator[_Named]:
    yield "unsettled_deliveries", _one(activity.unsettled)
    yield "oldest_unsettled_age_seconds", _one(activity.oldest_s)
    yield "waiting_entries", _one(activity.buffered)
    yield "calls_in_flight", _one(activity.in_flight)
    yield "calls_allowed", _one(activity.calls_allowed)
    yield "breaker_state", {(mode,): float(activity.mode == mode) for mode in Mode}
    yield "paused", {(kind,): float(activity.reason == kind) for kind in OutageKind}
    yield "draining", _one(activity.draining)
    yield "journal_up", _one(activity.journal_up)
    yield "storm_guard_tripped", _one(activity.storm_tripped)
    yield "storm_guard_dead_ratio", _one(activity.storm_share)
    if activity.budget is not None and activity.budget_left is not None:
        yield "call_budget", _one(activity.budget)
        yield "call_budget_left", _one(activity.budget_left)


def _of_the_process(vitals: Vitals) -> Iterator[_Named]:
    yield "ready", _one(vitals.ready)
    yield "consuming", _one(vitals.intake.consuming)
    yield "fast_lane", _one(vitals.intake.fast_lane)
    yield "broker_connected", {(name,): float(up) for name, up in vitals.health.connections.items()}
    yield "event_loop_lag_seconds", _one(vitals.health.loop_lag_s)
    yield "start_time_seconds", _one(vitals.started_s)
    yield "build_info", {(vitals.python, vitals.version): 1.0}


def _depths(depths: Depths) -> dict[Labels, float]:
    values: dict[Labels, float] = {}
    for kind, depth in depths.items():
        values[kind, "ready"] = depth.ready
        if depth.unacked is not None:
            values[kind, "unacked"] = depth.unacked
    return values
