"""Metrics as text: the table, the figures and what Prometheus reads are the same, in closed sets of labels."""

import re
from collections.abc import Sequence

import pytest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

from worker.adapters.prometheus import PrometheusText
from worker.core.measures import CallKind, Histogram, Measures
from worker.core.readiness import Activity, IntakeStatus
from worker.core.readings import Reading, readings
from worker.core.verdict import Call
from worker.core.vitals import Depth, Depths, Health, QueueKind, Vitals
from worker.telemetry import METRICS

OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
DEPTHS = {kind: Depth(ready=number, unacked=10 * number) for number, kind in enumerate(QueueKind, 1)}


def vitals(*, depths: Depths = DEPTHS, token_age_s: float | None = 12.5, budget: int | None = 100) -> Vitals:
    """A worker of which everything is known."""
    activity = Activity(
        mode="holding", reason="throttled", detail="", since_s=1.0, draining=False, unsettled=3, oldest_s=0.5,
        in_flight=2, calls_allowed=4, buffered=7, counts={"delivered": 10, "sent": 5, "released": 2, "remapped": 1},
        budget=budget, budget_left=None if budget is None else budget - 40,
    )  # fmt: skip
    intake = IntakeStatus(connected=True, consuming=True, generation=1, unsettled=3, delivered=10)
    health = Health(alive=True, loop_lag_s=0.25, connections={"consume": True, "publish": False})
    return Vitals(
        activity=activity, intake=intake, health=health, ready=False, token_age_s=token_age_s, depths=depths,
        version="0.1.0", python="3.11.7", started_s=1.8e9,
    )  # fmt: skip


def measured() -> Measures:
    """Of a worker that made one call and applied something."""
    measures = Measures()
    measures.called(CallKind.ORDERS, Call.ANSWERED, 0.3)
    measures.left("size", 3)
    measures.last_applied_us = 1_800_000_000_500_000
    return measures


async def text(accept: str = "", *, known: Vitals | None = None) -> tuple[str, str]:
    """What a scrape gets."""

    async def read() -> Sequence[Reading]:
        return readings(measured(), known or vitals())

    body, content_type = await PrometheusText(read).expose(accept)
    return body.decode(), content_type


async def families(known: Vitals | None = None) -> dict[str, Family]:
    body, _ = await text(OPEN_METRICS, known=known)
    return {family.name: family for family in open_metrics(body)}  # type: ignore[no-untyped-call]


def sample(found: dict[str, Family], name: str, **labels: str) -> float:
    """The value of one sample."""
    [value] = [
        float(each.value)
        for family in found.values()
        for each in family.samples
        if each.name == f"order_worker_{name}" and each.labels == labels
    ]
    return value


def bare(name: str) -> str:
    """As OpenMetrics calls the family."""
    return name.removesuffix("_total").removesuffix("_info")


async def test_every_metric_of_the_table_is_there_and_nothing_else() -> None:
    """With its kind, its meaning and exactly the label values of the table."""
    found = await families()

    assert set(found) == {bare(name) for name in METRICS}
    for name, metric in METRICS.items():
        family = found[bare(name)]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        if metric.series:
            series = {tuple(each.labels[label] for label in metric.labels) for each in family.samples}
            assert series == metric.series, name


async def test_what_is_not_known_is_absent() -> None:
    """A gauge that says 0 would be believed."""
    found = await families(vitals(depths={QueueKind.WORK: Depth(ready=4)}, token_age_s=None, budget=None))

    assert sample(found, "queue_messages", queue="work", state="ready") == 4
    assert len(found["order_worker_queue_messages"].samples) == 1
    missing = {bare(name) for name in METRICS} - set(found)
    assert missing == {f"order_worker_{name}" for name in ("token_age_seconds", "call_budget", "call_budget_left")}
    assert "order_worker_queue_messages" not in await families(vitals(depths={}))


async def test_figures_arrive_as_they_were_counted() -> None:
    """A few of each kind, histograms with their sums and cumulative buckets."""
    found = await families()

    assert sample(found, "deliveries_total") == 10
    assert sample(found, "events_settled_total", outcome="released", reason="handed-back") == 2
    assert sample(found, "calls_total", kind="orders", result="answered") == 1
    assert sample(found, "call_duration_seconds_bucket", le="0.25") == 0
    assert sample(found, "call_duration_seconds_bucket", le="0.5") == 1
    assert sample(found, "call_duration_seconds_bucket", le="+Inf") == 1
    assert sample(found, "call_duration_seconds_sum") == 0.3
    assert sample(found, "batch_entries_count") == 1
    assert sample(found, "paused", cause="throttled") == 1
    assert sample(found, "paused", cause="manual") == 0
    assert sample(found, "breaker_state", state="holding") == 1
    assert sample(found, "broker_connected", connection="publish") == 0
    assert sample(found, "call_budget_left") == 60
    assert sample(found, "last_applied_timestamp_seconds") == 1_800_000_000.5
    assert sample(found, "build_info", version="0.1.0", python="3.11.7") == 1


@pytest.mark.parametrize("accept", [OPEN_METRICS, "application/openmetrics-text; version=x, text/plain;q=0.1"])
async def test_open_metrics_is_for_those_who_ask_for_it(accept: str) -> None:
    """Prometheus does; whatever version it names, this one is what it gets."""
    body, content_type = await text(accept)

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain;version=0.0.4", "text/plain; version=x", "ü", "application/json"]
)
async def test_whoever_asks_for_nothing_readable_gets_the_plain_format(accept: str) -> None:
    """Every Prometheus reads it."""
    body, content_type = await text(accept)

    assert content_type.startswith("text/plain")
    assert {family.name for family in plain(body)} >= {"order_worker_deliveries", "order_worker_ready"}


@pytest.mark.parametrize("name", METRICS)
def test_names_follow_the_conventions(name: str) -> None:
    """What ``promtool check metrics`` minds: counters end in _total and nothing else does, base units, a help text, no
    kind in the name."""
    metric = METRICS[name]

    assert re.fullmatch(r"order_worker_[a-z]+(_[a-z]+)*", name)
    assert name.endswith("_total") == (metric.kind == "counter")
    assert name.endswith("_info") == (metric.kind == "info")
    words = set(name.split("_"))
    kinds_and_suffixes = {"counter", "gauge", "histogram", "summary", "count", "sum", "bucket"}
    other_units = {"ms", "milliseconds", "minutes", "hours", "days", "percent", "kilobytes", "megabytes"}
    assert not words & (kinds_and_suffixes | other_units)
    assert metric.meaning.endswith(".")
    assert not {"le", "quantile", "job", "instance", "order_id"}.intersection(metric.labels)


def test_the_number_of_series_is_known_and_small() -> None:
    """A scrape of every replica, every few seconds, for years."""
    histograms = [reading for reading in readings(measured(), vitals()) if METRICS[reading.name].kind == "histogram"]
    buckets = sum(
        len(value.counts) + 2 for each in histograms for value in each.values.values() if isinstance(value, Histogram)
    )
    others = sum(max(1, len(metric.series)) for metric in METRICS.values() if metric.kind != "histogram")

    assert buckets + others < 250


async def test_a_figure_that_does_not_fit_its_kind_is_a_fault() -> None:
    """Of ours; it is told instead of shown."""

    async def read() -> Sequence[Reading]:
        return [Reading("order_worker_ready", {(): Histogram((1.0,))})]

    with pytest.raises(TypeError, match="order_worker_ready"):
        await PrometheusText(read).expose("")


def test_nothing_was_applied_at_no_time() -> None:
    """Not in 1970 either."""
    names = {reading.name for reading in readings(Measures(), vitals())}

    assert set(METRICS) - names == {"order_worker_last_applied_timestamp_seconds"}


def test_values_of_a_label_are_listed_once() -> None:
    """For people: the README shows them."""
    assert METRICS["order_worker_events_settled_total"].values_of("outcome") == [
        "acked",
        "dead",
        "released",
        "renewed",
        "retried",
    ]
