"""What is counted for the metrics: per batch, in closed sets, and as exactly as one by one."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import make_delivery
from worker.core.measures import AGE_BOUNDS_S, RESULTS, CallKind, Histogram, Measures, Outcome
from worker.core.model import Ack, AckReason, Dead, Disposition, Reason, Release, Retry, Settlement, Update, Version
from worker.core.verdict import Call

NOW_US = 1_800_000_000_000_000
S = 1_000_000


def settlement(
    disposition: Disposition, *, age_s: float = 0.0, seen_s: float = 0.0, decoded: bool = True
) -> Settlement:
    """Of an event that occurred, and was first seen, so long ago."""
    delivery = make_delivery(b"{}")
    version = Version(NOW_US - round(age_s * S), -1, NOW_US - round(seen_s * S), "m")
    update = Update(order_id=1, fields={"status": 4}, version=version, delivery=delivery)
    return Settlement(delivery=delivery, disposition=disposition, update=update if decoded else None)


def one_by_one(bounds: Sequence[float], ages_us: Sequence[int]) -> Histogram:
    """The obvious way."""
    histogram = Histogram(bounds)
    for age_us in ages_us:
        histogram.observe(max(0, age_us) / S)
    return histogram


@given(st.lists(st.integers(-10 * S, 200_000 * S)), st.sampled_from([AGE_BOUNDS_S, (0.5,), ()]))
def test_ages_counted_together_are_those_counted_one_by_one(ages_us: list[int], bounds: Sequence[float]) -> None:
    """Wherever they lie; what is in the future counts as no age at all."""
    together = Histogram(bounds)
    together.observe_ages([NOW_US - age_us for age_us in ages_us], NOW_US)
    single = one_by_one(bounds, ages_us)

    assert together.counts == single.counts
    assert together.total == pytest.approx(single.total)


@pytest.mark.parametrize("bound", AGE_BOUNDS_S)
def test_a_bucket_includes_its_bound(bound: float) -> None:
    """Prometheus says "le"."""
    histogram = Histogram(AGE_BOUNDS_S)
    histogram.observe_ages([NOW_US - round(bound * S), NOW_US - round(bound * S) - 1], NOW_US)

    place = AGE_BOUNDS_S.index(bound)
    assert (histogram.counts[place], histogram.counts[place + 1]) == (1, 1)


def test_a_settled_batch_adds_each_outcome_and_only_the_applied_ages() -> None:
    """The age of what was superseded, retried or dead-lettered says nothing of how late the platform is."""
    measures = Measures()
    batch = [
        settlement(Ack(AckReason.APPLIED), age_s=2.0, seen_s=0.2),
        settlement(Ack(AckReason.APPLIED), age_s=3.0, seen_s=0.4),
        settlement(Ack(AckReason.SUPERSEDED), age_s=500.0),
        settlement(Retry(tier=0, reason=Reason.BUSY, detail="")),
        settlement(Retry(tier=0, reason=Reason.WORN, detail="", counts=False)),
        settlement(Dead(reason=Reason.INVALID_EVENT, detail=""), decoded=False),
        settlement(Release()),
    ]
    tally = measures.settled(batch, wall_us=NOW_US)
    measures.settled(batch[2:3], wall_us=NOW_US + S)

    assert tally[Outcome.ACKED, AckReason.APPLIED] == 2
    assert measures.outcomes == {
        (Outcome.ACKED, AckReason.APPLIED): 2,
        (Outcome.ACKED, AckReason.SUPERSEDED): 2,
        (Outcome.RETRIED, Reason.BUSY): 1,
        (Outcome.RENEWED, Reason.WORN): 1,
        (Outcome.DEAD, Reason.INVALID_EVENT): 1,
        (Outcome.RELEASED, "handed-back"): 1,
    }
    assert set(measures.outcomes) <= set(RESULTS)
    assert (sum(measures.age_occurred_s.counts), measures.age_occurred_s.total) == (2, 5.0)
    assert measures.age_first_seen_s.total == pytest.approx(0.6)
    assert measures.last_applied_us == NOW_US


def test_calls_and_batches_are_counted_where_they_happen() -> None:
    """A control call is a call without a batch."""
    measures = Measures()
    measures.called(CallKind.CONTROL, Call.ANSWERED, 0.01)
    measures.called(CallKind.ORDERS, Call.UNKNOWN, 15.0)
    measures.left("size", 100)

    assert measures.calls == {(CallKind.CONTROL, Call.ANSWERED): 1, (CallKind.ORDERS, Call.UNKNOWN): 1}
    assert (measures.call_s.total, sum(measures.call_s.counts)) == (15.01, 2)
    assert (measures.batches, measures.entries.total) == ({"size": 1}, 100.0)
