"""Messages that no worker can use, one of each kind that producers really manage to send."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from worker.core.fields import INT64_MAX, MAX_BODY_BYTES, MAX_DEPTH


def _with(**content: Any) -> Callable[[int], bytes]:
    return lambda order_id: json.dumps({"id": order_id, **content}).encode()


def _text(template: bytes) -> Callable[[int], bytes]:
    return lambda order_id: template.replace(b"ID", str(order_id).encode())


_DEEP = b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)

POISON: Final[Mapping[str, Callable[[int], bytes]]] = MappingProxyType(
    {
        "not json": _text(b"status=4&id=ID"),
        "empty": _text(b""),
        "no object": _text(b"[ID, 4]"),
        "no id": _text(b'{"status": 4}'),
        "wrong type": _with(status="in production"),
        "unknown field": _with(status=4, shiping_carrier="DPD"),
        "nothing to change": _with(occurred_at="2026-01-01T00:00:00Z"),
        "id beyond 64 bits": _with(id=INT64_MAX + 1, status=4),
        "not a number": _text(b'{"id": ID, "status": NaN}'),
        "too deep": _text(b'{"id": ID, "status": 4, "source": ' + _DEEP + b"}"),
        "not utf-8": _text(b'{"id": ID, "shipping_carrier": "Caf\xe9 Express"}'),
        "too large": _with(status=4, source="x" * MAX_BODY_BYTES),
        "from the future": _with(status=4, occurred_at="2099-01-01T00:00:00Z"),
    }
)
"""Kind -> body for an order id. All of them are dead-lettered as ``invalid-event``."""
