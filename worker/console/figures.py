"""From what workers count to what people ask: per minute, how full, how many failed. Pure.

Counters only grow while a process lives; one that is smaller than before belongs to a new process, and counts from 0.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from worker.core.readings import PREFIX

GAP_S: Final = 60.0
"""Samples further apart than that have nothing between them: the console, or the worker, was away."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Counted:
    """What one worker counted since it started. ``good`` is what was acknowledged: applied, or pointless by then."""

    settled: float = 0.0
    good: float = 0.0
    applied: float = 0.0
    dead: float = 0.0
    retried: float = 0.0
    entries: float = 0.0
    calls: float = 0.0
    failed_calls: float = 0.0


@dataclass(slots=True, frozen=True, kw_only=True)
class Sample:
    """One look at all workers and queues. ``at_s`` is seconds since 1970; ``oldest_s`` None where nobody said."""

    at_s: float
    counted: Mapping[str, Counted] = field(default_factory=dict)
    oldest_s: float | None = None
    work: int | None = None
    retry: int | None = None
    dead: int | None = None


def counted_in(text: str) -> tuple[Counted, float | None]:
    """The counters in a worker's ``/metrics``, and the age of its oldest unsettled event. Raises ValueError."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix(PREFIX)
            for key in _keys(name, sample.labels):
                sums[key] = sums.get(key, 0.0) + sample.value
    oldest = sums.pop("oldest", None)
    return Counted(**sums), oldest


def _keys(name: str, labels: Mapping[str, str]) -> Iterable[str]:
    match name:
        case "events_settled_total":
            yield "settled"
            outcome = {"acked": "good", "dead": "dead", "retried": "retried"}.get(labels.get("outcome", ""))
            if outcome is not None:
                yield outcome
            if outcome == "good" and labels.get("reason") == "applied":
                yield "applied"
        case "entries_sent_total":
            yield "entries"
        case "calls_total":
            yield "calls"
            if labels.get("result") != "answered":
                yield "failed_calls"
        case "oldest_unsettled_age_seconds":
            yield "oldest"


def increase(before: Sample, after: Sample, of: Callable[[Counted], float]) -> float | None:
    """How much was counted between two samples; None where nobody can say."""
    if after.at_s - before.at_s > GAP_S or not after.counted:
        return None
    grown = [_grown(of(before.counted[name]), of(now)) for name, now in after.counted.items() if name in before.counted]
    return sum(grown) if grown else None


def _grown(before: float, after: float) -> float:
    return after - before if after >= before else after


def per_minute(samples: Sequence[Sample], of: Callable[[Counted], float], *, over_s: float = 60.0) -> float | None:
    """The rate over the last ``over_s``; None where it is not known."""
    recent = [each for each in samples if each.at_s >= samples[-1].at_s - over_s] if samples else []
    pairs = list(pairwise(recent))
    known = [
        (grown, after.at_s - before.at_s)
        for before, after in pairs
        if (grown := increase(before, after, of)) is not None
    ]
    took_s = sum(span for _, span in known)
    return 60.0 * sum(grown for grown, _ in known) / took_s if took_s else None


def ratio(
    samples: Sequence[Sample], of: Callable[[Counted], float], to: Callable[[Counted], float], *, over_s: float = 300.0
) -> float | None:
    """How many of the one for each of the other, lately; None where there were none."""
    above, below = per_minute(samples, of, over_s=over_s), per_minute(samples, to, over_s=over_s)
    return above / below if above is not None and below else None


def series(
    samples: Sequence[Sample], of: Callable[[Counted], float], *, step_s: float = 60.0
) -> list[tuple[float, float | None]]:
    """The rate per minute, minute by minute: ends of steps, and None where it is not known."""
    points: list[tuple[float, float | None]] = []
    start = 0
    for number, sample in enumerate(samples):
        if sample.at_s - samples[start].at_s >= step_s or (number == len(samples) - 1 and number > start):
            points.append((sample.at_s, per_minute(samples[start : number + 1], of, over_s=2 * step_s)))
            start = number
    return points


def levels(samples: Sequence[Sample], of: Callable[[Sample], float | None]) -> list[tuple[float, float | None]]:
    """A value that stands, sample by sample."""
    return [(sample.at_s, of(sample)) for sample in samples]
