"""The verdict table row by row, and a property: every possible reply gets exactly one verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.modelplatform import reply, rest_error, shown
from worker.core.model import Fields
from worker.core.report import CallReport, CredentialsRefused, Insecure, NoAnswer, NotSent, Reply
from worker.core.verdict import Call, Item, Judgement, Rules, judge

RULES = Rules()
THREE: Mapping[int, Fields] = {11: {"status": 4}, 12: {"status": 4}, 13: {"status": 4}}
ONE: Mapping[int, Fields] = {11: {"status": 4}}


def verdicts(report: CallReport, requested: Mapping[int, Fields] = THREE, rules: Rules = RULES) -> dict[int, Item]:
    """The items of an answered call."""
    judgement = judge(report, requested, rules)
    assert judgement.call is Call.ANSWERED
    return {order_id: verdict.item for order_id, verdict in judgement.items.items()}


def one(item: Mapping[str, Any], fields: Fields, rules: Rules = RULES) -> Item:
    """The verdict on one order that was sent with ``fields`` and is shown as ``item``."""
    return verdicts(reply([{"id": 11, **item}]), {11: fields}, rules)[11]


def at(*path: object, message: str = "no") -> dict[str, Any]:
    return {"message": message, "path": list(path)}


def place(number: object, message: str = "no") -> dict[str, Any]:
    return at("core", "updateOrders", number, message=message)


# -- the call -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "call"),
    [
        (NotSent(cause="connection refused"), Call.UNAVAILABLE),
        (NoAnswer(cause="timeout"), Call.UNKNOWN),
        (Insecure(cause="certificate expired"), Call.CONFIGURATION),
        (CredentialsRefused(cause="invalid_client"), Call.AUTH),
        (Reply(status=429), Call.THROTTLED),
        (Reply(status=503, retry_after="5"), Call.THROTTLED),
        (Reply(status=503), Call.UNAVAILABLE),
        (rest_error("Rate limit exceeded"), Call.THROTTLED),
        (rest_error("Too Many Requests", 403), Call.THROTTLED),
        (Reply(status=400, readable=False, excerpt="<h1>Rate Limit</h1>"), Call.THROTTLED),
        (reply(None, [{"message": "no", "extensions": {"code": "THROTTLED"}}]), Call.THROTTLED),
        (reply(None, [{"message": "no", "code": "RATE_LIMITED"}], 500), Call.THROTTLED),
        (Reply(status=401), Call.AUTH),
        (rest_error("Authentication required", 400), Call.AUTH),
        (rest_error("Unauthorised transaction", 500, 401), Call.AUTH),
        (reply(None, [{"message": "Token has expired"}]), Call.AUTH),
        (reply(None, [{"message": "no", "extensions": {"code": "UNAUTHENTICATED"}}]), Call.AUTH),
        (reply(shown(THREE), [{"message": "Unauthenticated"}]), Call.AUTH),
        (Reply(status=301), Call.CONFIGURATION),
        (Reply(status=307), Call.CONFIGURATION),
        *[(Reply(status=status), Call.CONFIGURATION) for status in (404, 405, 406, 407, 415)],
        *[(Reply(status=status), Call.UNKNOWN) for status in (500, 502, 504)],
        (reply(shown(THREE), status=500), Call.UNKNOWN),
        (reply(None, [{"message": "Internal server error"}], 500), Call.UNKNOWN),
        (Reply(status=200, readable=False), Call.UNKNOWN),
        *[(Reply(status=status), Call.UNAVAILABLE) for status in (408, 425, 501, 505, 520, 599)],
        *[(Reply(status=status), Call.REFUSED) for status in (400, 402, 403, 409, 413, 418, 422, 451)],
        (rest_error("Invalid order status"), Call.REFUSED),
        (rest_error("Permission denied (order-it.order-manager.edit)", 403), Call.REFUSED),
        (reply(None, [{"message": "Internal server error"}]), Call.REFUSED),
        (reply(None, [{"message": "Cannot query field"}]), Call.REFUSED),
        (Reply(status=200, payload={}), Call.REFUSED),
        (Reply(status=200, payload=[]), Call.REFUSED),
        (Reply(status=200, payload=None), Call.REFUSED),
        (Reply(status=204), Call.REFUSED),
        (Reply(status=200, payload={"data": {"core": None}}), Call.REFUSED),
        (Reply(status=200, payload={"data": {"core": {"updateOrders": None}}}), Call.REFUSED),
        (Reply(status=200, payload={"data": {"core": {"updateOrders": {"id": 11}}}}), Call.REFUSED),
        (reply(shown(THREE), status=400), Call.REFUSED),
        (reply(shown(THREE)), Call.ANSWERED),
        (reply(shown(THREE), status=201), Call.ANSWERED),
        (reply([]), Call.ANSWERED),
    ],
)
def test_each_row_of_the_call_table(report: CallReport, call: Call) -> None:
    """First match wins; only an answered call has items."""
    judgement = judge(report, THREE, RULES)

    assert judgement.call is call
    assert set(judgement.items) == (set(THREE) if call is Call.ANSWERED else set())


@pytest.mark.parametrize(
    ("report", "transient"),
    [
        (reply(None, [{"message": "Internal server error"}]), True),
        (rest_error("Deadlock found, try again"), True),
        (reply(None, [{"message": "no", "extensions": {"code": "TIMEOUT"}}]), True),
        (rest_error("Invalid order status"), False),
    ],
)
def test_a_refusal_may_sound_like_the_platforms_own_trouble(report: CallReport, transient: bool) -> None:
    """By text or code, from the rules."""
    assert judge(report, ONE, RULES).transient is transient


def test_the_rules_decide_what_is_throttled_and_who_may_not() -> None:
    """They can be extended: statuses, texts, codes."""
    rules = Rules(
        throttle_statuses=frozenset({420}), auth_texts=("ip not allowed",), transient_codes=frozenset({"8014"})
    )

    assert judge(Reply(status=420), ONE, rules).call is Call.THROTTLED
    assert judge(rest_error("Your IP not allowed here", 403), ONE, rules).call is Call.AUTH
    assert judge(rest_error("date in the past", 400, 8014), ONE, rules).transient


@pytest.mark.parametrize(
    ("report", "detail"),
    [
        (rest_error("Invalid order status"), "HTTP 400: Invalid order status"),
        (Reply(status=400, payload={"error": "invalid_scope", "message": "bad scope"}), "HTTP 400: bad scope"),
        (Reply(status=400, payload={"error": "invalid", "error_description": "why"}), "HTTP 400: why"),
        (Reply(status=400, payload={"error": "invalid"}), "HTTP 400: invalid"),
        (Reply(status=400, payload={"errors": ["just a text"]}), "HTTP 400: just a text"),
        (Reply(status=502, readable=False, excerpt="<h1>Bad Gateway</h1>"), "HTTP 502: Bad Gateway"),
        (Reply(status=502), "HTTP 502"),
        (Insecure(cause="expired"), "TLS: expired"),
        (NotSent(cause="Bearer abcdefgh"), "Bearer ***"),
    ],
)
def test_the_detail_is_what_the_platform_said(report: CallReport, detail: str) -> None:
    """In either shape of error body, short and masked."""
    assert judge(report, ONE, RULES).detail == detail


def test_the_judgement_keeps_status_and_retry_after() -> None:
    """The outage needs them."""
    judgement = judge(Reply(status=429, retry_after="7"), ONE, RULES)

    assert (judgement.status, judgement.retry_after) == (429, "7")


# -- one order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "got", "item"),
    [
        (4, 4, Item.APPLIED),
        (4, "4", Item.APPLIED),
        (8, 64, Item.APPLIED),
        (8, "516", Item.APPLIED),
        (8, 128, Item.TERMINAL),
        (4, 516, Item.TERMINAL),
        (128, 128, Item.APPLIED),
        (128, 64, Item.TERMINAL),
        (4, 1, Item.UNCONFIRMED),
        (64, 8, Item.UNCONFIRMED),
        (4, None, Item.UNCONFIRMED),
        (4, True, Item.UNCONFIRMED),
        (4, "four", Item.UNCONFIRMED),
        (None, None, Item.APPLIED),
        (None, 1, Item.UNCONFIRMED),
        ("open", "open", Item.UNCONFIRMED),
    ],
)
def test_the_status_decides_whether_it_was_applied(wanted: Any, got: Any, item: Item) -> None:
    """Equal, an accepted successor, a terminal one, or something else."""
    assert one({"status": got}, {"status": wanted}) is item


def test_successors_and_terminal_statuses_are_data() -> None:
    """Nothing about them is documented."""
    rules = Rules(successors={4: frozenset({5})}, terminal_statuses=frozenset({6}))

    assert [one({"status": got}, {"status": 4}, rules) for got in (5, 6, 128)] == [
        Item.APPLIED,
        Item.TERMINAL,
        Item.UNCONFIRMED,
    ]


def test_other_fields_may_be_mapped_to_equivalents() -> None:
    """Counted, and still applied."""
    sent: Fields = {"status": 4, "shipping_carrier": "Royal Mail"}

    assert one({"status": 4, "shipping_carrier": "RM"}, sent) is Item.REMAPPED
    assert one({"status": 4}, sent) is Item.REMAPPED
    assert one({"status": 4, "shipping_carrier": "Royal Mail"}, sent) is Item.APPLIED
    assert one({"status": 128, "shipping_carrier": "DPD"}, {"shipping_carrier": "DPD"}) is Item.APPLIED


def test_an_unconfirmed_status_is_explained() -> None:
    """A person wants to know what the platform shows."""
    shown_1 = judge(reply([{"id": 11, "status": 1}]), ONE, RULES).items[11]
    shown_128 = judge(reply([{"id": 11, "status": 128}]), ONE, RULES).items[11]

    assert shown_1.detail == "the platform shows status 1 instead of the requested one"
    assert shown_128.detail == "the platform shows the terminal status 128"


# -- matching -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "items",
    [
        [{"id": 13, "status": 4}, {"id": 11, "status": 4}, {"id": 12, "status": 4}],
        [{"id": "12", "status": "4"}, {"id": "011", "status": 4}, {"id": 13, "status": 4}],
        [
            None,
            *shown(THREE),
            "text",
            7,
            {"status": 4},
            {"id": None},
            {"id": 99, "status": 4},
            {"id": "-1"},
            {"id": "x"},
        ],
    ],
    ids=["shuffled", "numeric strings", "with nonsense in between"],
)
def test_replies_are_matched_by_id(items: Sequence[Any]) -> None:
    """Never by position; what has no id of ours is ignored."""
    assert verdicts(reply(items)) == dict.fromkeys(THREE, Item.APPLIED)


def test_an_order_that_is_shown_twice_is_unconfirmed() -> None:
    """Nobody knows which of them to believe."""
    items = [*shown(THREE), {"id": "12", "status": 4}]

    assert verdicts(reply(items)) == {11: Item.APPLIED, 12: Item.UNCONFIRMED, 13: Item.APPLIED}


@pytest.mark.parametrize("items", [[], [None, None, None], [None, 5]])
def test_who_is_missing_while_nobody_is_blamed_is_unconfirmed(items: Sequence[Any]) -> None:
    """Missing is never applied, and never innocent."""
    assert verdicts(reply(items)) == dict.fromkeys(THREE, Item.UNCONFIRMED)


def shown_but(*nulls: int) -> list[Any]:
    return [None if order_id in nulls else {"id": order_id, "status": 4} for order_id in THREE]


A, B, I, U = Item.APPLIED, Item.BLAMED, Item.INNOCENT, Item.UNCONFIRMED  # noqa: E741 - a table


@pytest.mark.parametrize(
    ("items", "errors", "expected"),
    [
        (shown_but(12), [place(1)], (A, B, A)),
        (shown_but(12), [place("1")], (A, B, A)),
        (shown_but(11, 12, 13), [place(1)], (I, B, I)),
        (shown_but(11, 12, 13), [place(0), place(2)], (B, I, B)),
        (shown_but(), [at("core", "updateOrders", 2, "status")], (A, A, B)),
        (list(reversed(shown_but())), [at("core", "updateOrders", 2, "status")], (B, A, A)),
        (shown_but()[:1], [place(1)], (A, B, I)),
        (shown_but()[1:], [place(0)], (I, B, A)),
        ([{"id": 13, "status": 4}, None], [place(1)], (I, B, A)),
        ([{"id": 12, "status": 4}, None], [place(1)], (B, A, B)),
        (shown_but(12), [place(12)], (A, B, A)),
        (shown_but(), [place(13)], (A, A, B)),
        (shown_but(12), [place(77)], (A, U, A)),
        (shown_but(), [at("core", "updateOrders", "status", 0)], (A, A, A)),
        (shown_but(), [at()], (A, A, A)),
        (shown_but(), [{"message": "deprecated"}], (A, A, A)),
        (shown_but(12), [{"message": "something went wrong"}], (A, U, A)),
        (shown_but(12), [at("core", "updateOrders")], (A, U, A)),
        (shown_but(12), ["text", None, {"path": "x"}, {"path": [None, {}, 1]}], (A, U, A)),
    ],
    ids=[
        "null at its place",
        "place as a string",
        "all null, one blamed",
        "all null, two blamed",
        "error inside an item",
        "error inside an item of a shuffled list",
        "shorter list, place of a missing order",
        "named item is another one: it is blamed",
        "null in a list of another order",
        "null at the place of an order that is shown: all missing are blamed",
        "id as a key",
        "id as a key, shown all the same",
        "id of nobody",
        "no place where one belongs",
        "empty path",
        "no path, full data",
        "no path, one missing",
        "path ends at the list",
        "broken errors",
    ],
)
def test_errors_blame_by_path(items: Sequence[Any], errors: Sequence[Any], expected: tuple[Item, ...]) -> None:
    """A position is read in the reply first, then among the missing; without a path nobody is blamed."""
    assert tuple(verdicts(reply(items, errors)).values()) == expected


def test_a_single_missing_order_is_what_the_error_is_about() -> None:
    """There is nobody else."""
    verdict = judge(reply([None], [{"message": "Deadlock found"}]), ONE, RULES).items[11]

    assert (verdict.item, verdict.detail, verdict.transient) == (Item.BLAMED, "Deadlock found", True)
    assert verdicts(reply(shown(ONE), [{"message": "deprecated"}]), ONE) == {11: Item.APPLIED}


@pytest.mark.parametrize(
    ("message", "transient"), [("Invalid order status", False), ("Internal server error", True), ("Rate limit", True)]
)
def test_what_is_said_of_one_order_is_not_said_of_the_call(message: str, transient: bool) -> None:
    """An error with a place is judged with its order, whatever its text."""
    judgement = judge(reply(shown_but(12), [place(1, message)]), THREE, RULES)

    assert judgement.call is (Call.ANSWERED)
    assert judgement.items[12].transient is transient


def test_the_first_error_about_an_order_is_the_one_that_is_told() -> None:
    """Later ones are mostly consequences."""
    judgement = judge(reply(shown_but(12), [place(1, "first"), place(1, "second")]), THREE, RULES)

    assert judgement.items[12].detail == "first"


# -- every possible reply ---------------------------------------------------------------------------------------------

texts = st.sampled_from(
    ["", "no", "Rate limit", "Internal server error", "Access token", "timeout", "\ud800", "x" * 900]
)
scalars = (
    st.none() | st.booleans() | st.integers(-5, 20) | st.floats() | texts | st.sampled_from(["11", "12", "4", "-", "٣"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
errors = st.fixed_dictionaries(
    {},
    optional={
        "message": anything,
        "code": anything,
        "path": st.lists(scalars, max_size=4) | anything,
        "extensions": st.fixed_dictionaries({}, optional={"code": anything}) | anything,
    },
)
items = st.fixed_dictionaries({}, optional={"id": scalars, "status": scalars, "shipping_carrier": scalars})
lists = st.lists(items | anything, max_size=5)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "data": st.fixed_dictionaries({"core": st.fixed_dictionaries({"updateOrders": lists | anything}) | anything})
        | anything,
        "errors": st.lists(errors | anything, max_size=3) | anything,
        "error": errors | anything,
        "message": anything,
    },
)
replies = st.builds(
    Reply,
    status=st.integers(100, 599) | st.sampled_from([200, 200, 200, 400, 500]),
    payload=payloads | anything,
    readable=st.booleans(),
    retry_after=st.none() | texts,
    excerpt=texts,
)
causes = st.text(max_size=20)
reports: st.SearchStrategy[CallReport] = replies | st.one_of(
    st.builds(NotSent, cause=causes),
    st.builds(NoAnswer, cause=causes),
    st.builds(Insecure, cause=causes),
    st.builds(CredentialsRefused, cause=causes),
)
requests = st.dictionaries(
    st.integers(1, 13),
    st.dictionaries(st.sampled_from(["status", "shipping_carrier"]), scalars, min_size=1),
    max_size=4,
)


@settings(max_examples=400, deadline=None)
@given(reports, requests)
@example(reply([{"id": 11, "status": 4}], [place(-1), place(10**30), place("9" * 30)]), THREE)
def test_every_possible_reply_gets_exactly_one_verdict(report: CallReport, requested: Mapping[int, Fields]) -> None:
    """No exception; an answered call has a verdict for every order and for no other; details fit a header."""
    judgement = judge(report, requested, RULES)

    assert isinstance(judgement, Judgement)
    assert set(judgement.items) == (set(requested) if judgement.call is Call.ANSWERED else set())
    assert all(len(text) <= 300 for text in [judgement.detail, *[v.detail for v in judgement.items.values()]])


numbers = st.sampled_from([1, 2, 3, 4, "1", "2", "02", 4.0, True, False, None, 8, 64, 128, 516])
wishes = st.dictionaries(
    st.integers(1, 3),
    st.dictionaries(st.sampled_from(["status", "shipping_carrier"]), numbers | scalars, min_size=1),
    max_size=3,
)


@st.composite
def nearly_usual(draw: st.DrawFn) -> tuple[Mapping[int, Fields], list[Any]]:
    """A request, and a reply that shows it in some order but for a few changes."""
    requested = draw(wishes)
    shown_items: list[Any] = [
        {"id": order_id, "status": 4, "shipping_carrier": None, **requested[order_id]}
        for order_id in draw(st.permutations(list(requested)))
    ]
    for item in shown_items:
        for name in draw(st.lists(st.sampled_from(["id", "status", "shipping_carrier"]), max_size=2)):
            item[name] = draw(numbers)
        item.pop(draw(st.sampled_from(["id", "status", "status_name", "shipping_carrier", "", "-"])), None)
    return requested, shown_items + draw(
        st.lists(st.sampled_from(shown_items) if shown_items else anything, max_size=1)
    )


@settings(max_examples=500, deadline=None)
@given(nearly_usual() | st.tuples(requests, lists))
@example((THREE, shown(THREE)))
@example((THREE, shown(THREE)[::-1]))
@example(({1: {"status": 4}}, [{"id": True, "status": 4}]))
@example(({1: {"status": 4}}, [{"id": 1.0, "status": 4}]))
@example(({1: {"status": 4}}, [{"id": 1, "status": 4.0}]))
@example(({1: {"status": 1}}, [{"id": 1, "status": True}]))
@example(({1: {"status": 4.0}}, [{"id": 1, "status": 4}]))
def test_the_usual_reply_is_judged_as_any_other(given_: tuple[Mapping[int, Fields], list[Any]]) -> None:
    """It has a way of its own, over all items at once. An item of nobody sends a reply the long way: same verdicts."""
    requested, shown_items = given_
    judgement = judge(reply(shown_items), requested, RULES)

    assert judgement == judge(reply([*shown_items, None]), requested, RULES)
    assert judgement.all_applied is all(verdict.item is Item.APPLIED for verdict in judgement.items.values())


@settings(max_examples=200, deadline=None)
@given(lists, st.lists(errors, max_size=2), st.permutations([11, 12, 13]))
def test_an_order_is_applied_only_if_the_reply_shows_it_once(
    shown_items: list[Any], faults: list[Any], order: list[int]
) -> None:
    """Whatever else a reply holds: missing is never applied."""
    judgement = judge(reply(shown_items, faults), {order_id: {"status": 4} for order_id in order}, RULES)
    for order_id, verdict in judgement.items.items():
        if verdict.item in (Item.APPLIED, Item.REMAPPED):
            seen = [
                item for item in shown_items if isinstance(item, dict) and item.get("id") in (order_id, str(order_id))
            ]

            assert len(seen) == 1
            assert seen[0].get("status") in (4, "4")
