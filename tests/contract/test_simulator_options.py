"""Each switchable unknown of the stand-in does what its name says."""

from typing import Any

import msgspec
import pytest

from tests.contract.simulator_client import Clock, orders, running
from worker.simulator.options import Options, changed

UNKNOWN = "Invalid order specified, index 1"


def ids(entries: list[dict[str, Any] | None]) -> list[Any]:
    """The ids of the entries of a reply; None for a null entry."""
    return [entry and entry["id"] for entry in entries]


async def seed(client: Any, *order_ids: int) -> None:
    """Make orders exist."""
    await client.sim("POST", "orders", [{"id": order_id} for order_id in order_ids])


@pytest.mark.parametrize(
    ("unknown", "expected_ids", "errors"),
    [
        ("error", [1, None, 3], [(UNKNOWN, ["core", "updateOrders", 1])]),
        ("null", [1, None, 3], []),
        ("omit", [1, 3], []),
    ],
)
async def test_unknown_order(unknown: str, expected_ids: list[Any], errors: list[Any]) -> None:
    """An order that does not exist is an error, a null entry, or left out; the others are applied."""
    async with running(auto_create=False, unknown_orders=unknown, shuffle_replies="off") as client:
        await seed(client, 1, 3)
        answer = await client.update(*orders(3, first=1))

        assert (ids(answer.entries), answer.errors) == (expected_ids, errors)


async def test_order_without_access_is_like_an_unknown_one() -> None:
    """An order of somebody else's cannot be told from one that does not exist."""
    async with running(inaccessible_orders=frozenset({2}), shuffle_replies="off") as client:
        answer = await client.update(*orders(3, first=1))

        assert (ids(answer.entries), answer.errors) == ([1, None, 3], [(UNKNOWN, ["core", "updateOrders", 1])])


@pytest.mark.parametrize("order_id", [0, -1, None])
async def test_no_order_has_such_an_id(order_id: int | None) -> None:
    """Ids start at 1, also where every order exists."""
    async with running() as client:
        answer = await client.update({"id": order_id, "status": 4})

        assert answer.errors == [("Invalid order specified, index 0", ["core", "updateOrders", 0])]


async def test_every_order_exists_by_default() -> None:
    """Loads and demos need no seeding."""
    async with running() as client:
        answer = await client.update({"id": 987654321, "shipping_carrier": "Owl"})

        assert answer.entries[0]["status_name"] == "Received"


@pytest.mark.parametrize("refusal", ["path", "no_path", "http_400"])
async def test_atomic_batch_applies_nothing_when_one_order_is_refused(refusal: str) -> None:
    """All or nothing, however the refusal is worded."""
    async with running(batch="atomic", refusal=refusal, rejected_orders={2: "No"}) as client:
        answer = await client.update(*orders(3, first=1))

        assert client.simulator.platform.orders.history == []
        match refusal:
            case "path":
                assert (answer.entries, answer.errors) == ([None] * 3, [("No", ["core", "updateOrders", 1])])
            case "no_path":
                assert (answer.entries, answer.errors) == (None, [("No", None)])
            case _:
                assert (answer.status, answer.payload) == (400, {"error": {"message": "No", "code": 0}})


async def test_refusal_as_http_400_is_always_atomic() -> None:
    """An answer that names no order can only mean that nothing was applied."""
    async with running(refusal="http_400", rejected_orders={2: "No"}) as client:
        answer = await client.update(*orders(3, first=1))

        assert (answer.status, client.simulator.platform.orders.history) == (400, [])


async def test_error_without_path_leaves_the_others_applied() -> None:
    """An error without a path blames nobody; the null entry is all there is to see."""
    async with running(refusal="no_path", rejected_orders={2: "No"}, shuffle_replies="off") as client:
        answer = await client.update(*orders(3, first=1))

        assert (ids(answer.entries), answer.errors) == ([1, None, 3], [("No", None)])
        assert [change.order_id for change in client.simulator.platform.orders.history] == [1, 3]


async def test_value_can_be_rejected() -> None:
    """One bad value among good ones of the same order is refused wherever it is part of an update."""
    async with running(rejected_values={"shipping_method": {"Owl": "Unknown method"}}) as client:
        bad = await client.update({"id": 1, "shipping_method": "Owl", "status": 4})
        good = await client.update({"id": 1, "status": 4})

        assert bad.errors == [("Unknown method", ["core", "updateOrders", 0])]
        assert good.entries[0]["status"] == 4


async def test_busy_order_is_busy_so_many_times() -> None:
    """A busy order fails with the masked text until its count is used up; others do not notice."""
    async with running(busy_orders={1: 2}, shuffle_replies="off") as client:
        answers = [await client.update(*orders(2, first=1)) for _ in range(3)]

        assert [ids(answer.entries) for answer in answers] == [[None, 2], [None, 2], [1, 2]]
        assert answers[0].errors == [("Internal server error", ["core", "updateOrders", 0])]


async def test_order_can_be_busy_for_ever() -> None:
    """-1 has no end, and the text is an option."""
    async with running(busy_orders={1: -1}, busy_text="Order is locked") as client:
        texts = {(await client.update({"id": 1, "status": 4})).errors[0][0] for _ in range(5)}

        assert texts == {"Order is locked"}


@pytest.mark.parametrize(("transitions", "allowed"), [("off", True), ("on", False)])
async def test_transition_rules(transitions: str, allowed: bool) -> None:
    """A cancelled order may go back into production only where there are no rules; staying is always allowed."""
    async with running(transitions=transitions) as client:
        await client.sim("POST", "orders", {"id": 1, "status": 128})
        back = await client.update({"id": 1, "status": 4})
        repeated = await client.update({"id": 1, "status": 4 if allowed else 128})

        assert back.errors == ([] if allowed else [("Invalid order status", ["core", "updateOrders", 0])])
        assert repeated.errors == []


async def test_unknown_status_is_accepted_unless_switched() -> None:
    """Statuses are an open set by default."""
    async with running() as client:
        accepted = await client.update({"id": 1, "status": 520})
        client.set_options(known_statuses_only=True)
        refused = await client.update({"id": 1, "status": 520})

        assert (accepted.entries[0]["status"], accepted.entries[0]["status_name"]) == (520, "Unknown")
        assert refused.errors[0][0] == "Invalid order status"


async def test_terminal_order_keeps_its_status() -> None:
    """The reply shows the terminal status, without an error; the other fields are stored."""
    async with running(terminal_statuses=frozenset({128})) as client:
        await client.sim("POST", "orders", {"id": 1, "status": 128})
        answer = await client.update({"id": 1, "status": 8, "shipping_carrier": "Royal Mail"})

        assert (answer.entries[0]["status"], answer.entries[0]["shipping_carrier"]) == (128, "Royal Mail")


@pytest.mark.parametrize("stored", [8, 64, 516])
async def test_status_after_dispatch(stored: Any) -> None:
    """Dispatched may lawfully read back as a successor."""
    async with running(status_after_dispatch=stored) as client:
        answer = await client.update({"id": 1, "status": 8})

        assert answer.entries[0]["status"] == stored


async def test_carrier_and_method_can_be_mapped() -> None:
    """Values are stored as the platform's own equivalents."""
    async with running(remap={"Tracked 24": "RM1"}) as client:
        answer = await client.update({"id": 1, "shipping_method": "Tracked 24"})

        assert answer.entries[0]["shipping_method"] == "RM1"


async def test_numeric_strings() -> None:
    """Ids and statuses may come back as strings."""
    async with running(numeric_strings=True) as client:
        answer = await client.update({"id": 46140199, "status": 4})

        assert (answer.entries[0]["id"], answer.entries[0]["status"]) == ("46140199", "4")


async def test_too_many_orders_are_refused_as_a_whole() -> None:
    """The largest batch is accepted, one more is not."""
    async with running(max_batch=2) as client:
        fits = await client.update(*orders(2))
        too_many = await client.update(*orders(3))

        assert (len(fits.entries), too_many.entries) == (2, None)
        assert too_many.errors[0][1] == ["core", "updateOrders"]


@pytest.mark.parametrize(("empty_list", "entries"), [("accept", []), ("refuse", None)])
async def test_empty_list(empty_list: str, entries: Any) -> None:
    """An empty list is answered by an empty list, or refused."""
    async with running(empty_list=empty_list) as client:
        answer = await client.update()

        assert (answer.entries, bool(answer.errors)) == (entries, entries is None)


async def test_replies_are_shuffled_but_complete() -> None:
    """Entries come in another order than they were sent; blamed ones stay at their index."""
    async with running(rejected_orders={5: "No"}, seed=1) as client:
        answer = await client.update(*orders(50, first=1))

        shown = ids(answer.entries)
        assert shown != list(range(1, 51))
        assert shown[4] is None
        assert sorted(item for item in shown if item) == [index for index in range(1, 51) if index != 5]


async def test_shuffling_all_moves_blamed_entries_too() -> None:
    """Then an error path tells nothing about the input: a worker must not believe it blindly."""
    async with running(rejected_orders={1: "No"}, seed=1, shuffle_replies="all") as client:
        answer = await client.update(*orders(50, first=1))

        path = answer.errors[0][1]
        assert answer.entries[path[2]] is None
        assert path[2] != 0


async def test_too_many_orders_without_a_path() -> None:
    """A refusal of the whole list blames nobody where errors carry no path."""
    async with running(max_batch=1, refusal="no_path") as client:
        answer = await client.update(*orders(2))

        assert (answer.entries, answer.errors[0][1]) == (None, None)


async def test_rate_limit_is_http_400_and_ends_after_an_hour() -> None:
    """As documented of another interface: 400 with a REST error body, not 429."""
    clock = Clock()
    async with running(clock, rate_per_hour=2, token_lifetime_s=90_000.0) as client:
        statuses = [(await client.update(*orders(1))).status for _ in range(3)]
        limited = await client.update(*orders(1))
        clock.now_s += 3600
        statuses.append((await client.update(*orders(1))).status)

        assert statuses == [200, 200, 400, 200]
        assert limited.payload == {"error": {"message": "Rate limit exceeded", "code": 9429}}


async def test_daily_limit_outlasts_the_hour() -> None:
    """The day has a budget of its own."""
    clock = Clock()
    async with running(clock, rate_per_hour=2, rate_per_day=3, token_lifetime_s=90_000.0) as client:
        statuses = []
        for _ in range(4):
            statuses.append((await client.update(*orders(1))).status)
            clock.now_s += 3600

        assert statuses == [200, 200, 200, 400]


async def test_document_errors_may_be_http_400() -> None:
    """Some GraphQL servers answer document errors with a 400."""
    async with running(request_error_status=400) as client:
        answer = await client.graphql("{ nothing }")

        assert (answer.status, list(answer.payload)) == (400, ["errors"])


def test_every_option_survives_a_change_of_another() -> None:
    """Changing one option keeps the values of all others, whatever their type."""
    options = Options(
        inaccessible_orders=frozenset({7}),
        rejected_orders={1: "No"},
        rejected_values={"status": {"9": "No"}},
        busy_orders={3: -1},
        latency_s=(0.1, 0.2),
        terminal_statuses=frozenset({64, 128}),
    )

    assert changed(options, {"max_batch": 5}) == msgspec.structs.replace(options, max_batch=5)
