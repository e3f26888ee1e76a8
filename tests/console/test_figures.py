"""What workers count as people ask for it, charts, and the story of an order: no server is needed."""

import pytest

from tests.builders import NOW_US
from worker.console import figures
from worker.console.charts import chart
from worker.console.figures import Counted, Sample, counted_in
from worker.console.now import verdict
from worker.console.orderstory import step_of, story
from worker.console.sampling import Seen
from worker.core.history import HistoryRow, Pause, PauseKind
from worker.core.model import Version

S = 1_000_000

# -- figures --------------------------------------------------------------------------------------------------------

METRICS = """\
# TYPE order_worker_events_settled_total counter
order_worker_events_settled_total{outcome="acked",reason="applied"} 80.0
order_worker_events_settled_total{outcome="acked",reason="superseded"} 15.0
order_worker_events_settled_total{outcome="dead",reason="rejected"} 5.0
# TYPE order_worker_calls_total counter
order_worker_calls_total{kind="orders",result="answered"} 9.0
order_worker_calls_total{kind="orders",result="unknown"} 1.0
# TYPE order_worker_entries_sent_total counter
order_worker_entries_sent_total 40.0
# TYPE order_worker_oldest_unsettled_age_seconds gauge
order_worker_oldest_unsettled_age_seconds 2.5
"""


def test_counters_are_read_from_what_a_worker_exposes() -> None:
    """Summed over their labels."""
    counted, oldest = counted_in(METRICS)

    assert counted == Counted(settled=100, good=95, applied=80, dead=5, entries=40, calls=10, failed_calls=1)
    assert oldest == 2.5


def sample(at_s: float, *settled: float) -> Sample:
    return Sample(at_s=at_s, counted={f"w{n}": Counted(settled=value) for n, value in enumerate(settled)})


def by_settled(counted: Counted) -> float:
    return counted.settled


def test_rates_come_from_what_grew() -> None:
    """Over all workers; a new process counts from 0, and a gap says nothing."""
    assert figures.per_minute([sample(0, 100, 10), sample(30, 130, 40)], by_settled) == 120
    assert figures.per_minute([sample(0, 100), sample(30, 20)], by_settled) == 40
    assert figures.per_minute([sample(0, 100), sample(300, 200)], by_settled, over_s=600) is None
    assert figures.per_minute([sample(0, 100)], by_settled) is None
    assert figures.per_minute([], by_settled) is None
    assert figures.per_minute([sample(0, 5), sample(10)], by_settled) is None


def test_a_series_has_a_point_for_each_minute() -> None:
    """And none where nobody knows."""
    samples = [sample(10.0 * n, 5.0 * n) for n in range(19)]

    assert figures.series(samples, by_settled) == [(60.0, 30.0), (120.0, 30.0), (180.0, 30.0)]


def test_a_chart_says_in_words_what_it_shows() -> None:
    """For those who cannot see it; foreign words are escaped."""
    drawn = chart("Events <x>", [(100.0, 1.0), (200.0, None), (300.0, 4.0)], now_s=300.0)

    assert 'role="img"' in drawn
    assert "Events &lt;x&gt;, last 10 min: now 4, most 4" in drawn
    assert "most 4<br>last 10 min" in drawn
    assert drawn.count("<polyline") == 2
    assert "style=" not in drawn
    assert "nothing is known yet" in chart("Events", [(1.0, None)], now_s=2.0)


READY, AWAY = Seen(url="a", state={"ready": True}), Seen(url="b", problem="gone")
STUCK = Seen(url="c", state={"ready": False, "reason": "auth", "detail": "the client secret is refused"})
PAUSE = Pause(queue="q", kind=PauseKind.MANUAL, detail="tea", by="kim", since_us=NOW_US)


@pytest.mark.parametrize(
    ("workers", "pauses", "tone", "told"),
    [
        ([READY], [], "good", "Working"),
        ([READY, AWAY], [], "warn", "not every worker"),
        ([STUCK], [], "bad", "auth. the client secret is refused"),
        ([AWAY], None, "bad", "No worker answers"),
        ([], [], "bad", "No worker answers"),
        ([READY], [PAUSE], "warn", "Paused: tea"),
    ],
)
def test_the_whole_in_a_sentence(workers: list[Seen], pauses: list[Pause] | None, tone: str, told: str) -> None:
    """Is it working?"""
    found = verdict(workers, pauses)

    assert found[0] == tone
    assert told in found[1]


# -- the story of an order ------------------------------------------------------------------------------------------


def row(disposition: str, reason: str, at_us: int = NOW_US, message_id: str = "m", **more: object) -> HistoryRow:
    version = Version(at_us, -1, at_us, message_id)
    given: dict[str, object] = {"version": version, "order_id": 1, **more}
    return HistoryRow(at_us=at_us, disposition=disposition, reason=reason, message_id=message_id, **given)  # type: ignore[arg-type]


def test_the_event_that_happened_last_comes_first_and_its_steps_in_order() -> None:
    """A retry and its end belong to one event."""
    told = story([row("retry", "busy"), row("ack", "applied", NOW_US + S, "n"), row("dead", "retries-exhausted")])

    assert [event.message_id for event in told] == ["n", "m"]
    assert [step.tone for step in told[1].steps] == ["warn", "bad"]
    assert told[1].tone == "bad"


@pytest.mark.parametrize(
    ("disposition", "reason", "text"),
    [
        ("ack", "applied", "The platform has it: it answered status 8 (Shipped)"),
        ("ack", "duplicate", "Not sent: the same value is applied already"),
        ("ack", "new-reason", "Done: new-reason"),
        ("retry", "busy", "Tried again later: the platform was busy with this order"),
        ("dead", "rejected", "Became a dead letter: the platform refused it"),
        ("discarded", "rejected", "Discarded by kim"),
        ("release", "x", "Handed back to the broker"),
        ("other", "x", "other: x"),
    ],
)
def test_each_step_is_a_sentence(disposition: str, reason: str, text: str) -> None:
    """Also where a later version of the worker has other words."""
    given = row(disposition, reason, worker="kim", status=8, status_name="Shipped")

    assert step_of(given).text == text
