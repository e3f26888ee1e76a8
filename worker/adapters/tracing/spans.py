"""Tracing by OpenTelemetry (extra ``otel``): spans at the seams of the pipeline.

    receive   one per delivery; child of the producer's span where the event has a context (header ``traceparent``)
    process   one per batch, from when it leaves to when it is settled; linked to the receive spans of its events
    mutation  the call to the platform, child of the batch's; its context goes along as HTTP header
    settle    acknowledgements and copies, child of the batch's where there is one; linked like it

Names and attributes are those of OpenTelemetry's conventions for messaging, RabbitMQ, GraphQL and HTTP. A delivery is
handed on with the context of its receive span in place of the one it came with: copies for retries and dead letters
keep their headers, so they carry it on, and the next attempt is a child of this one.

Ids, names, counts and reasons are told; values of orders, bodies and tokens never are.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue
from yarl import URL

from worker.adapters.tracing.context import context_of, link_to, with_current
from worker.core.entry import Batch
from worker.core.errors import WorkerError
from worker.core.model import Ack, Dead, Delivery, Release, Retry, Settlement
from worker.core.report import CallReport, Reply

_SYSTEM: Final = {"messaging.system": "rabbitmq"}
_KINDS: Final = {Ack: "acks", Retry: "retries", Dead: "dead_letters", Release: "releases"}


class Spans:
    """Implements ``ports.Tracer``, and has the spans of the other seams. ``queue`` is the work queue's name."""

    def __init__(self, provider: TracerProvider, *, queue: str) -> None:
        self._queue = queue
        self._tracer = provider.get_tracer("worker")

    def received(self, delivery: Delivery) -> Delivery:
        """A receive span, over at once; the delivery with its context."""
        properties = delivery.properties
        attributes: dict[str, AttributeValue] = {
            **_SYSTEM,
            "messaging.operation.name": "receive",
            "messaging.operation.type": "receive",
            "messaging.destination.name": _text(f"{delivery.exchange}:{delivery.routing_key}:{self._queue}"),
            "messaging.rabbitmq.destination.routing_key": _text(delivery.routing_key),
            "messaging.rabbitmq.message.delivery_tag": delivery.tag,
            "messaging.message.body.size": len(delivery.body),
        }
        if properties.message_id:
            attributes["messaging.message.id"] = _text(properties.message_id)
        if properties.correlation_id:
            attributes["messaging.message.conversation_id"] = _text(properties.correlation_id)
        context = context_of(properties.headers)
        with self._span("receive", SpanKind.CONSUMER, attributes, context=context, start_us=delivery.arrived_us):
            return replace(delivery, properties=replace(properties, headers=with_current(properties.headers)))

    def batch(self, batch: Batch) -> AbstractContextManager[object]:
        """See ``ports.Tracer``."""
        deliveries = [update.delivery for entry in batch.everything for update in entry.updates]
        attributes = {
            **self._about("process", len(deliveries)),
            "order_worker.batch.id": batch.id,
            "order_worker.batch.reason": batch.reason.value,
            "order_worker.batch.orders": len(batch.entries),
        }
        return self._span("process", SpanKind.CONSUMER, attributes, links=deliveries, context=Context())

    @contextmanager
    def settling(self, settlements: Sequence[Settlement]) -> Iterator[None]:
        """The span of one try to settle these; an error where a copy could not be placed."""
        kinds = Counter(type(each.disposition) for each in settlements)
        attributes = {
            **self._about("settle", len(settlements)),
            **{f"order_worker.settle.{_KINDS[kind]}": count for kind, count in kinds.items()},
        }
        deliveries = [settlement.delivery for settlement in settlements]
        with self._span("settle", SpanKind.CLIENT, attributes, links=deliveries) as span:
            _tell_copies(span, settlements)
            yield

    def calling(self, url: URL, orders: int) -> AbstractContextManager[Span]:
        """The span of one call."""
        attributes: dict[str, AttributeValue] = {
            "graphql.operation.type": "mutation",
            "graphql.operation.name": "updateOrders",
            "http.request.method": "POST",
            "server.address": url.host or "",
            "server.port": url.port or 0,
            "order_worker.call.orders": orders,
        }
        return self._span("mutation", SpanKind.CLIENT, attributes, target="updateOrders")

    # -- parts ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _span(
        self,
        name: str,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
        *,
        target: str = "",
        context: Context | None = None,
        links: Sequence[Delivery] = (),
        start_us: int | None = None,
    ) -> Iterator[Span]:
        """A current span. What ends it early is told by its kind: only our own errors have texts without payload."""
        with self._tracer.start_as_current_span(
            f"{name} {target or self._queue}",
            context,
            kind,
            attributes,
            links=_links(links),
            start_time=None if start_us is None else start_us * 1000,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                fail(span, type(error).__name__, str(error) if isinstance(error, WorkerError) else "")
                raise

    def _about(self, operation: str, messages: int) -> dict[str, AttributeValue]:
        return {
            **_SYSTEM,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": self._queue,
            "messaging.batch.message_count": messages,
        }


def fail(span: Span, kind: str, description: str) -> None:
    """What it was meant for went wrong."""
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, description or None)


def tell_report(span: Span, report: CallReport) -> None:
    """How the call ended. What the platform said in words stays out: it may speak of an order."""
    if not isinstance(report, Reply):
        fail(span, type(report).__name__, report.cause)
        return
    span.set_attribute("http.response.status_code", report.status)
    if report.status >= 300:
        fail(span, str(report.status), "")
    elif not report.readable:
        fail(span, "unreadable", "the reply is cut off, too large or no JSON")
    elif isinstance(report.payload, dict) and report.payload.get("errors"):
        fail(span, "graphql", "the reply has errors")


def _links(deliveries: Sequence[Delivery]) -> list[Link]:
    return [link for delivery in deliveries if (link := link_to(delivery)) is not None]


def _tell_copies(span: Span, settlements: Sequence[Settlement]) -> None:
    for each in settlements:
        if isinstance(each.disposition, Retry | Dead):
            name = "message.dead" if isinstance(each.disposition, Dead) else "message.retry"
            order = {} if each.update is None else {"order_id": each.update.order_id}
            span.add_event(name, {"reason": each.disposition.reason.value, **order})


def _text(value: str) -> str:
    """Lone surrogates stand for bytes that are no UTF-8, and protobuf takes none."""
    return value.encode(errors="replace").decode()
