"""What a replay would do, by the index and by the message; it never says less than what the worker would do."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.deadletter import MOST_GROUPS, OTHERS
from worker.core.edits import Edits
from worker.core.forecast import Cell, Forecast, Grounds, Kind, Tallies, forecast_decoded, forecast_letter
from worker.core.history import IndexedLetter
from worker.core.model import Dead, Delivery, Fields, Properties, Reason, Update, Version
from worker.core.values import Values
from worker.core.versions import standing

GROUNDS = Grounds(terminal=frozenset({64, 128, 516}), latest_us=10**15)


def at(time_us: int, message_id: str = "m") -> Version:
    """A version of this time."""
    return Version(time_us, -1, time_us, message_id)


def letter(
    fields: Fields | None = None, version: Version | None = None, *, reason: str = "rejected", detail: str = "why"
) -> IndexedLetter:
    """A letter of the index."""
    return IndexedLetter(
        copy_id="c", queue="q", reason=reason, failed_us=1, order_id=7, detail=detail, fields=fields or {},
        version=version,
    )  # fmt: skip


def update(fields: Fields, version: Version) -> Update:
    """What the body says."""
    delivery = Delivery(generation=0, tag=0, body=b"", properties=Properties())
    return Update(order_id=7, fields=fields, version=version, delivery=delivery)


@pytest.mark.parametrize(
    ("fields", "version", "values", "kind", "says"),
    [
        ({"status": 4}, at(5), None, Kind.APPLY, ""),
        ({"status": 4}, at(5), {}, Kind.APPLY, ""),
        ({"status": 4}, at(5), {"status": (at(4), 3)}, Kind.APPLY, ""),
        (
            {"status": 4},
            at(5),
            {"status": (at(6), 8)},
            Kind.SUPERSEDED,
            "status is 8 since 1970-01-01T00:00:00.000006Z",
        ),
        ({"status": 4}, at(5), {"status": (at(5), 4)}, Kind.SUPERSEDED, "already applied: status is 4"),
        ({"status": 4, "shipping_carrier": "x"}, at(5), {"status": (at(6), 8)}, Kind.APPLY, ""),
        (
            {"status": 4, "shipping_carrier": "x"},
            at(5),
            {"status": (at(6), 8), "shipping_carrier": (at(9), None)},
            Kind.SUPERSEDED,
            "status is 8 since 1970-01-01T00:00:00.000006Z, shipping_carrier is null since",
        ),
        ({"status": 4}, at(5), {"status": (at(4), 64)}, Kind.RETURNS, "terminal-order: status is 64 since"),
        ({"status": 64}, at(5), {"status": (at(4), 64)}, Kind.APPLY, ""),
        ({"status": 4}, at(5), {"status": (at(6), 64)}, Kind.SUPERSEDED, "status is 64"),
        ({"shipping_carrier": "x"}, at(5), {"status": (at(4), 64)}, Kind.APPLY, ""),
        ({"status": 4, "shipping_carrier": "x"}, at(5), {"status": (at(6), 64)}, Kind.APPLY, ""),
    ],
)
def test_index_and_message_are_judged_by_the_same_rules(
    fields: Fields, version: Version, values: Values | None, kind: Kind, says: str
) -> None:
    """Newer, older, equal, partly newer, and orders that take no other status any more."""
    by_index = forecast_letter(letter(fields, version), values, GROUNDS)
    by_message = forecast_decoded(update(fields, version), values, GROUNDS)

    assert by_index == by_message
    assert by_index.kind is kind
    assert by_index.detail.startswith(says) if says else by_index.detail == ""


def test_a_terminal_order_takes_it_where_that_is_allowed() -> None:
    """``--allow-terminal``."""
    allowed = Grounds(terminal=GROUNDS.terminal, latest_us=GROUNDS.latest_us, allow_terminal=True)

    assert forecast_letter(letter({"status": 4}, at(5)), {"status": (at(4), 64)}, allowed).kind is Kind.APPLY


def test_what_is_older_than_the_journal_remembers_cannot_be_judged() -> None:
    """But only of orders without a row: a row remembers."""
    grounds = Grounds(terminal=frozenset(), latest_us=10**15, horizon_us=6)

    assert "too-old-to-judge" in forecast_letter(letter({"status": 4}, at(5)), None, grounds).detail
    assert forecast_letter(letter({"status": 4}, at(6)), None, grounds).kind is Kind.APPLY
    assert forecast_letter(letter({"status": 4}, at(5)), {"status": (at(4), 3)}, grounds).kind is Kind.APPLY


def test_what_was_no_event_would_come_straight_back_unless_it_is_edited() -> None:
    """The index has no fields of it; edits may make an event of it, which only the body can tell."""
    invalid = letter(reason="invalid-event", detail="id: missing")

    assert forecast_letter(invalid, None, GROUNDS) == Forecast(kind=Kind.RETURNS, detail="invalid-event: id: missing")
    assert forecast_letter(invalid, None, GROUNDS, Edits({"status": 8})).kind is Kind.UNJUDGED
    assert forecast_letter(letter(reason="broker:delivery_limit"), None, GROUNDS).kind is Kind.UNJUDGED
    dead = Dead(reason=Reason.INVALID_EVENT, detail="id: missing")
    assert forecast_decoded(dead, None, GROUNDS) == Forecast(kind=Kind.RETURNS, detail="invalid-event: id: missing")


def test_edits_are_part_of_the_forecast() -> None:
    """The value, and when it happened."""
    known: Values = {"status": (at(4), 64)}
    dead = letter({"status": 4}, at(3))

    assert forecast_letter(dead, known, GROUNDS).kind is Kind.SUPERSEDED
    later = Edits({"occurred_at": "1970-01-01T00:00:01Z"})
    assert forecast_letter(dead, known, GROUNDS, later).kind is Kind.RETURNS
    assert forecast_letter(dead, known, GROUNDS, Edits({**later.changes, "status": 64})).kind is Kind.APPLY
    future = Edits({"occurred_at": "2100-01-01T00:00:01Z"})
    assert "in the future" in forecast_letter(dead, known, GROUNDS, future).detail


VERSIONS = st.builds(at, st.integers(0, 4), st.sampled_from("ab"))
FIELDS = st.dictionaries(st.sampled_from(["status", "shipping_carrier"]), st.integers(1, 3), min_size=1)


@given(
    fields=FIELDS,
    version=VERSIONS,
    values=st.dictionaries(st.sampled_from(["status", "shipping_carrier"]), st.tuples(VERSIONS, st.integers(1, 3))),
)
def test_superseded_is_what_the_worker_would_acknowledge_unsent(
    fields: Fields, version: Version, values: Values
) -> None:
    """The two rules are one."""
    forecast = forecast_letter(letter(fields, version), values, GROUNDS)
    covered = standing(update(fields, version), values)

    assert (forecast.kind is Kind.SUPERSEDED) == (covered is not None)


def test_tallies_count_by_reason_and_kind_with_an_example() -> None:
    """The most frequent reason first."""
    tallies = Tallies()
    for reason, kind, detail in [
        ("rejected", Kind.APPLY, ""),
        ("busy", Kind.SUPERSEDED, "first"),
        ("busy", Kind.SUPERSEDED, "second"),
        ("busy", Kind.APPLY, ""),
    ]:
        tallies.add(reason, Forecast(kind=kind, detail=detail))

    assert tallies.cells() == [
        Cell(reason="busy", kind=Kind.APPLY, count=1, example=""),
        Cell(reason="busy", kind=Kind.SUPERSEDED, count=2, example="first"),
        Cell(reason="rejected", kind=Kind.APPLY, count=1, example=""),
    ]
    assert (tallies.total, tallies.by_kind[Kind.APPLY], tallies.by_kind[Kind.RETURNS]) == (4, 2, 0)


def test_tallies_are_bounded() -> None:
    """Reasons are headers, and headers may say anything."""
    tallies = Tallies()
    for number in range(MOST_GROUPS + 50):
        tallies.add(f"r{number}", Forecast(kind=Kind.APPLY))

    assert len(tallies.cells()) == MOST_GROUPS + 1
    assert tallies.cells()[0] == Cell(reason=OTHERS, kind=Kind.APPLY, count=50, example="")


def test_an_order_that_is_not_allowed_returns_and_one_that_is_is_judged() -> None:
    """By index and by message: a replay while the list still holds would only make dead letters again."""
    dead = letter({"status": 4}, at(5), reason="not-allowed")
    barred = replace(GROUNDS, allowed=frozenset({8}))

    for forecast in (forecast_letter(dead, None, barred), forecast_decoded(update({"status": 4}, at(5)), None, barred)):
        assert forecast.kind is Kind.RETURNS
        assert forecast.detail == "not-allowed: order 7 is not among the orders of ALLOW_ORDERS"
    assert forecast_letter(dead, None, replace(GROUNDS, allowed=frozenset({7}))).kind is Kind.APPLY
    assert forecast_letter(replace(dead, order_id=None), None, barred).kind is Kind.APPLY
