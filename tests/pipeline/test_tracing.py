"""Spans of a whole worker: who is whose parent, what is linked to what, what they say, and what errors look like."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from tests.pipeline.world import World
from worker.adapters.tracing.wrapping import Tracing
from worker.core.entry import Batch
from worker.core.model import Properties, Retry, Settlement
from worker.core.report import NoAnswer, Reply

QUEUE = "order-updates.work"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PRODUCER = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{PRODUCER}-01"


class Recording:
    """What was traced."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider, queue=QUEUE)

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans whose name begins with this, without those of control calls."""
        spans = self._exporter.get_finished_spans()
        return [each for each in spans if each.name.startswith(name) and not _is_control(each)]

    def only(self, name: str) -> ReadableSpan:
        """The one span of this name."""
        (found,) = self.named(name)
        return found


@pytest.fixture
def recording() -> Recording:
    """Keeps all spans."""
    return Recording()


def _is_control(span: ReadableSpan) -> bool:
    said = span.attributes or {}
    return said.get("order_worker.batch.reason") == "control" or said.get("order_worker.call.orders") == 0


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    """What it says."""
    return span.attributes or {}


def ids(span: ReadableSpan) -> tuple[int, int]:
    """Trace and span."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    """Trace and span of its parent."""
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def linked(span: ReadableSpan) -> set[tuple[int, int]]:
    """Trace and span of all it is linked to."""
    return {(link.context.trace_id, link.context.span_id) for link in span.links}


def publish(world: World, order_id: int, headers: Mapping[str, Any], **fields: Any) -> None:
    """An event with these headers."""
    body = json.dumps({"id": order_id, **(fields or {"status": 4})}).encode()
    properties = Properties(message_id=f"m-{order_id}", content_type="application/json", headers=headers)
    world.queue.publish(body, properties, str(order_id))


async def test_spans_follow_an_event_from_its_producer_to_its_settlement(no_leaks: None, recording: Recording) -> None:
    """Receive is the producer's child; the batch is linked to it and is the parent of call and settlement."""
    async with World(tracing=recording.tracing) as world:
        await world.start()
        publish(world, 1, {"traceparent": PARENT, "tracestate": "vendor=x"})
        publish(world, 2, {})
        await world.until_settled()
    one, two = recording.named("receive")
    batch, call, settle = recording.only("process"), recording.only("mutation"), recording.only("settle")

    assert (one.name, batch.name, settle.name) == (f"receive {QUEUE}", f"process {QUEUE}", f"settle {QUEUE}")
    assert call.name == "mutation updateOrders"
    assert parent(one) == (int(TRACE, 16), int(PRODUCER, 16))
    assert one.context is not None
    assert one.context.trace_state == {"vendor": "x"}
    assert parent(two) is None
    assert parent(batch) is None
    assert linked(batch) == linked(settle) == {ids(one), ids(two)}
    assert parent(call) == parent(settle) == ids(batch)
    assert [span.kind for span in (one, batch, call, settle)] == [
        SpanKind.CONSUMER, SpanKind.CONSUMER, SpanKind.CLIENT, SpanKind.CLIENT,
    ]  # fmt: skip


async def test_attributes_are_those_of_the_conventions_and_hold_no_value(no_leaks: None, recording: Recording) -> None:
    """Ids, names and counts; nothing of an order's fields, and no token."""
    async with World(tracing=recording.tracing) as world:
        await world.start()
        publish(world, 1, {}, status=4, shipping_carrier="Planted Carrier Ltd")
        await world.until_settled()
    receive, batch = attributes(recording.only("receive")), attributes(recording.only("process"))
    call, settle = attributes(recording.only("mutation")), attributes(recording.only("settle"))

    assert receive["messaging.system"] == batch["messaging.system"] == settle["messaging.system"] == "rabbitmq"
    assert receive["messaging.destination.name"] == f"order-updates:1:{QUEUE}"
    assert receive["messaging.message.id"] == "m-1"
    assert receive["messaging.rabbitmq.destination.routing_key"] == "1"
    assert [each["messaging.operation.type"] for each in (receive, batch, settle)] == ["receive", "process", "settle"]
    assert [each["messaging.batch.message_count"] for each in (batch, settle)] == [1, 1]
    assert settle["order_worker.settle.acks"] == 1
    assert (call["server.address"], call["server.port"]) == ("platform.test", 443)
    assert (call["http.response.status_code"], call["graphql.operation.name"]) == (200, "updateOrders")
    told = " ".join(str(attributes(each)) for each in recording.named(""))
    assert "Planted" not in told
    assert world.platform.calls[-1].token not in told


async def test_a_retry_carries_its_context_on_and_the_next_attempt_is_its_child(
    no_leaks: None, recording: Recording
) -> None:
    """One trace from the producer through both attempts to the dead letter's header."""
    async with World(tracing=recording.tracing, max_attempts=2) as world:
        await world.start()
        silent = Reply(status=200, payload={"data": {"core": {"updateOrders": []}}})
        world.platform.script.extend([silent] * 12)
        publish(world, 1, {"traceparent": PARENT})
        await world.until_settled(within_s=120.0)
    first, *_, last = recording.named("receive")
    headers = [copy.properties.headers for copy in world.queue.dead]

    assert ids(first)[0] == ids(last)[0] == int(TRACE, 16)
    assert parent(last) == ids(first)
    retried = [event for span in recording.named("settle") for event in span.events if event.name == "message.retry"]
    assert [event.attributes and event.attributes["order_id"] for event in retried] == [1]
    assert len(headers) == 1
    for each in headers:
        assert each["traceparent"] == f"00-{format_trace_id(ids(last)[0])}-{format_span_id(ids(last)[1])}-01"


async def test_errors_have_a_status_and_a_kind(no_leaks: None, recording: Recording) -> None:
    """An unanswered call, a refused one, and a copy that cannot be placed at first."""
    refused: list[Settlement] = []

    def once(settlement: Settlement) -> bool:
        refused.append(settlement)
        return len(refused) == 1

    async with World(tracing=recording.tracing) as world:
        await world.start()
        world.platform.script.extend([NoAnswer(cause="timeout"), Reply(status=502, readable=False)])
        publish(world, 1, {})
        await world.until_settled()
        world.settler.refuses = once
        world.publish_raw(b"no event")
        await world.until_settled()
    calls, settled = recording.named("mutation"), recording.named("settle")
    failed = [attributes(each).get("error.type") for each in calls if each.status.status_code is StatusCode.ERROR]

    assert failed[0] == "NoAnswer"
    assert calls[-1].status.status_code is StatusCode.UNSET
    assert [attributes(each).get("error.type") for each in settled][-2:] == ["CopyFailed", None]
    assert settled[-2].status.status_code is StatusCode.ERROR
    assert settled[-1].events[0].name == "message.dead"
    assert dict(settled[-1].events[0].attributes or {}) == {"reason": "invalid-event"}


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "nonsense", "tracestate": "a=b"},
        {"traceparent": 7},
        {"traceparent": PARENT.upper() + "-x" * 50},
        {"traceparent": f"00-{'0' * 32}-{PRODUCER}-01"},
        {"tracestate": ["a"]},
    ],
)
async def test_headers_that_anybody_may_have_written_begin_a_new_trace(
    headers: Mapping[str, Any], recording: Recording, no_leaks: None
) -> None:
    """The event is handled like any other, and what was wrong does not go on."""
    async with World(tracing=recording.tracing) as world:
        await world.start()
        publish(world, 1, headers)
        await world.until_settled()
        (settlement,) = world.queue.acked.values()
    receive = recording.only("receive")

    assert parent(receive) is None
    carried = settlement.delivery.properties.headers
    assert carried["traceparent"].split("-")[2] == format_span_id(ids(receive)[1])
    assert "tracestate" not in carried


class Counting:
    """Implements ``ports.Tracer``; counts."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def batch(self, batch: Batch) -> AbstractContextManager[object]:
        """See ``ports.Tracer``."""
        self.batches.append(sum(len(entry.updates) for entry in batch.everything))
        return nullcontext()


async def test_the_pipeline_asks_its_tracer_once_per_batch_and_never_per_event(no_leaks: None) -> None:
    """Everything else is in wrappers, which do not exist where tracing is off."""
    async with World() as world:
        counting = Counting()
        world.pipeline._calls._tracer = counting
        await world.start()
        for number in range(1, 11):
            for order_id in range(1, 51):
                world.publish(order_id, number)
        await world.until_settled()

    batches: Sequence[int] = [size for size in counting.batches if size]
    assert sum(batches) == 500
    assert len(batches) == len([call for call in world.platform.calls if call.orders])
    assert not any(isinstance(each.disposition, Retry) for each in world.queue.acked.values())
