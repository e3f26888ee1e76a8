"""What of an original message stays on its copy: what the client can send again, within bounds; the rest is shown."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode as amqp_decode
from pamqp import encode as amqp_encode

from tests.builders import make_delivery
from tests.core.test_headers import LONG, TEXT, VALUES, again, dead
from worker.core.headers import read_history
from worker.core.original import MAX_KEPT
from worker.core.table import encoded_size, entry_size, fit


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\xff", {"base64": "/w=="}),
        (2**63, 2**63),
        (2**70, {"integer": "71 bits"}),
        (0.1, 0.1),  # doubles would go out as 32-bit floats
        (1e300, 1e300),
        (Decimal(123456789012), {"decimal": "123456789012"}),
        (datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC), {"time": "2026-01-01T00:00:00.000005+00:00"}),
        ("\udcff", "\\udcff"),
        ({"deep": [b"\xff"]}, {"deep": [{"base64": "/w=="}]}),
        ({"n" * 129: 1}, {"n" * 129: 1}),
        ({1, 2}, {"type": "set"}),
    ],
)
def test_values_the_client_cannot_encode_again_are_shown_instead(value: object, shown: object) -> None:
    """The client decodes more than it encodes; such a header must not stop the copy."""
    headers = dead(make_delivery(headers={"odd": value, "fine": 1})).properties.headers

    assert "odd" not in headers
    assert headers["fine"] == 1
    assert json.loads(headers["ow-original"]) == {"headers.odd": shown}


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**63 - 1,
        1.5,
        "ü",
        bytearray(b"\xff"),
        Decimal("1.50"),
        datetime(2026, 1, 1, tzinfo=UTC),
    ],
)
def test_values_that_survive_are_kept_as_they_are(value: object) -> None:
    """What the wire format gives back unchanged is not touched, alone or nested."""
    nested = {"list": [value, {"inner": value}]}
    copy = dead(make_delivery(headers={"plain": value, "nested": nested}))

    assert again(copy).properties.headers["plain"] == value
    assert again(copy).properties.headers["nested"] == nested
    assert "ow-original" not in copy.properties.headers


def test_one_huge_header_is_dropped_by_name_and_the_others_stay() -> None:
    """A frame holds 128 KiB of properties; 100 kB in one header still fit."""
    fits = dead(make_delivery(headers={"trace": "x" * 100_000, "small": 1})).properties.headers
    headers = dead(make_delivery(headers={"huge": "x" * MAX_KEPT, "small": 1})).properties.headers

    assert len(fits["trace"]) == 100_000
    assert (headers["small"], json.loads(headers["ow-dropped"])) == (1, ["huge"])
    assert "huge" not in headers


def test_names_of_dropped_headers_are_bounded_and_counted() -> None:
    """Also over several copies."""
    many = {f"x-{number:04}": "y" * 100 for number in range(1500)}
    first = dead(make_delivery(headers=many))
    second = dead(again(first))
    names = json.loads(second.properties.headers["ow-dropped"])

    assert names[-1].startswith("… and ")
    assert len(second.properties.headers["ow-dropped"]) <= 1024


def test_unusable_properties_are_left_out_and_shown() -> None:
    """A lenient decoder may give text that is no UTF-8; it cannot be sent again."""
    copy = dead(make_delivery(correlation_id="\udcff", priority=300, reply_to="r" * 256, app_id="fine"))
    properties = copy.properties

    assert (properties.correlation_id, properties.priority, properties.reply_to) == (None, None, None)
    assert properties.app_id == "fine"
    assert read_history(properties.headers).original == {
        "correlation_id": "\\udcff", "priority": 300, "reply_to": "r" * 256,
    }  # fmt: skip


def test_values_nested_beyond_reason_are_left_out() -> None:
    """Encoding and showing them recurses; both end at the same depth."""
    value: Any = 1
    for _ in range(30):
        value = [value]
    headers = dead(make_delivery(headers={"deep": value})).properties.headers

    assert "deep" not in headers
    assert "(nested deeper)" in headers["ow-original"]


@given(VALUES)
def test_sizes_are_upper_bounds_and_survivors_survive(value: Any) -> None:
    """What has a size is encoded by the client in no more bytes, and read back equal."""
    size = encoded_size(value)
    if size is None:
        return

    encoded = amqp_encode.encode_table_value(value)
    assert len(encoded) <= size
    assert entry_size("name", value) == size + 9
    _, back = amqp_decode.embedded_value(encoded)
    assert equal(back, value)


def equal(back: Any, value: Any) -> bool:
    """Equality with naive times taken as UTC."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return bool(back == value.replace(tzinfo=UTC))
    if isinstance(value, list):
        return len(back) == len(value) and all(map(equal, back, value))
    if isinstance(value, dict):
        return back.keys() == value.keys() and all(equal(back[name], item) for name, item in value.items())
    return bool(back == value) or repr(back) == repr(value)


@given(TEXT | LONG, st.integers(0, 300))
def test_fitted_texts_can_be_sent(text: str, limit: int) -> None:
    """Within the limit in bytes, and fitting twice changes nothing."""
    fitted = fit(text, limit)

    assert len(fitted.encode()) <= limit
    assert fit(fitted, limit) == fitted
