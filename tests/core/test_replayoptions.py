"""What was asked for is kept with the plan, and comes back the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.replayoptions import Options, parse_rate, replay_id

OPTIONS = st.builds(
    Options,
    queue=st.text(),
    exchange=st.none() | st.text(),
    reason=st.none() | st.text(),
    order_ids=st.lists(st.integers(1, 2**63 - 1)).map(tuple),
    message_ids=st.lists(st.text()).map(tuple),
    since_us=st.none() | st.integers(),
    limit=st.none() | st.integers(1),
    rate=st.none() | st.floats(0.1, 1000),
    canary=st.integers(0, 1000),
    max_failures=st.none() | st.integers(0, 10),
    edits=st.lists(st.text()).map(tuple),
    allow_terminal=st.booleans(),
)


@given(OPTIONS)
def test_options_come_back_from_json(options: Options) -> None:
    """The journal keeps JSON."""
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_what_a_later_version_adds_is_left_out() -> None:
    """An older program can still show it."""
    assert Options.from_json({"queue": "q", "moon": 1}) == Options(queue="q")


@pytest.mark.parametrize(
    ("text", "rate"),
    [("5", 5), ("5/s", 5), (" 0.5/s ", 0.5), ("30/m", 0.5), ("0", None), ("-1", None), ("5/h", None), ("", None),
     ("many", None), ("1e9", None)],
)  # fmt: skip
def test_rates_are_per_second_or_minute(text: str, rate: float | None) -> None:
    """None is what it is no rate."""
    assert parse_rate(text) == rate


def test_failures_stop_a_replay_with_a_canary_or_when_asked_to() -> None:
    """With a canary none is allowed unless said otherwise."""
    assert Options(queue="q").failures_allowed is None
    assert Options(queue="q", canary=10).failures_allowed == 0
    assert Options(queue="q", max_failures=3).failures_allowed == 3


def test_ids_sort_by_time() -> None:
    """And are short enough to type."""
    assert replay_id("2026-11-22T03:15:00.123456Z", "x7k2") == "r-20261122-031500-x7k2"
