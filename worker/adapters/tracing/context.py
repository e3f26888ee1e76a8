"""W3C trace context (``traceparent``, ``tracestate``) in message headers: read from them, and put into them."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker.core.model import Delivery

_PROPAGATOR: Final = TraceContextTextMapPropagator()
# It warns of every malformed header, and whoever may publish could fill the log with that.
logging.getLogger("opentelemetry.trace").setLevel(logging.ERROR)


class _Headers(Getter[Mapping[str, Any]]):
    """AMQP headers hold any type, and anybody may write them."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        """The text of this name."""
        value = carrier.get(key)
        return [value] if isinstance(value, str) else None

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        """All names."""
        return list(carrier)


_HEADERS: Final = _Headers()


def context_of(headers: Mapping[str, Any]) -> Context:
    """The context that a message came with; an empty one where it has none, or none that is valid."""
    return _PROPAGATOR.extract(headers, Context(), _HEADERS)


def current_headers() -> dict[str, str]:
    """The context of the current span as headers, of HTTP and of AMQP; empty without one."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier


def with_current(headers: Mapping[str, Any]) -> dict[str, Any]:
    """These headers, with the context of the current span in place of theirs."""
    if not (ours := current_headers()):
        return dict(headers)
    return {name: value for name, value in headers.items() if name != "tracestate"} | ours


def link_to(delivery: Delivery) -> Link | None:
    """A link to the span that this delivery carries."""
    context = get_current_span(context_of(delivery.properties.headers)).get_span_context()
    return Link(context) if context.is_valid else None
