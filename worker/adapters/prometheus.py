"""Writes the worker's figures as Prometheus and OpenMetrics read them, with prometheus-client.

The library's own counters are not used: they are global by default and take a lock per event. Each scrape gets a
registry of its own with families made from the table and the readings of that moment.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from worker.core.measures import Histogram
from worker.core.readings import Labels, Reading
from worker.metrics import METRICS, Kind, Metric

OPEN_METRICS = "application/openmetrics-text"


class PrometheusText:
    """Implements ``ports.Exposition``. ``read`` gives the readings of now; it must not raise."""

    def __init__(self, read: Callable[[], Awaitable[Sequence[Reading]]]) -> None:
        self._read = read

    async def expose(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, in the format that the ``Accept`` header asks for."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Read(await self._read()))
        # Not the library's choose_encoder: it raises where somebody sends a version that is no number.
        if OPEN_METRICS in accept.lower():
            return _open_metrics(registry), openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def _open_metrics(registry: CollectorRegistry) -> bytes:
    text: bytes = openmetrics.generate_latest(registry, version="1.0.0")  # type: ignore[no-untyped-call]
    return text


class _Read(Collector):
    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Family]:
        for reading in self._readings:
            yield _family(reading.name, METRICS[reading.name], reading.values)


def _empty(name: str, metric: Metric) -> Family:
    match metric.kind:
        case Kind.COUNTER:
            return CounterMetricFamily(name, metric.meaning, labels=metric.labels)
        case Kind.HISTOGRAM:
            return HistogramMetricFamily(name, metric.meaning, labels=metric.labels)
        case Kind.INFO:
            return InfoMetricFamily(name.removesuffix("_info"), metric.meaning)
        case Kind.GAUGE:
            return GaugeMetricFamily(name, metric.meaning, labels=metric.labels)


def _family(name: str, metric: Metric, values: Mapping[Labels, float | Histogram]) -> Family:
    family = _empty(name, metric)
    for labels, value in values.items():
        _add(family, metric, [str(label) for label in labels], value)
    return family


def _add(family: Family, metric: Metric, labels: Sequence[str], value: float | Histogram) -> None:
    match family, value:
        case HistogramMetricFamily(), Histogram():
            family.add_metric(labels, buckets=_buckets(value), sum_value=value.total)
        case InfoMetricFamily(), _:
            family.add_metric([], dict(zip(metric.labels, labels, strict=True)))
        case ((CounterMetricFamily() | GaugeMetricFamily()), (int() | float())):
            family.add_metric(labels, value)
        case _:
            raise TypeError(f"{family.name}: {type(value).__name__} does not fit its kind")


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus counts each bucket with all those below it."""
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    running, buckets = 0, []
    for bound, count in zip(bounds, histogram.counts, strict=True):
        running += count
        buckets.append((bound, float(running)))
    return buckets
