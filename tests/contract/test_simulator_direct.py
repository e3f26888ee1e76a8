"""The stand-in's short way for the mutation that workers send answers as graphql-core does, and writes the same."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.simulator_client import DOCUMENTED_MUTATION, Answer, Client, running
from worker.simulator import endpoint
from worker.simulator.direct import plan_of, read_direct
from worker.simulator.options import MASKED
from worker.simulator.orders import Change

IDS = st.one_of(
    st.integers(-2, 6), st.sampled_from([None, True, 1.0, 2.5, "3", 2**63 - 1, 2**63, -(2**63)]), st.just(46140199)
)
STATUSES = st.one_of(
    st.sampled_from([1, 4, 8, 64, 128]), st.sampled_from([None, False, 4.0, "4", 2**31 - 1, 2**31, -(2**31)])
)
TEXTS = st.one_of(
    st.none(), st.sampled_from(["Royal Mail", "DPD", "", 'a "b" \\ / ü 漢 \x7f \u2028', "\ud800"]), st.just(7)
)
ORDER = st.fixed_dictionaries(
    {},
    optional={
        "shipping_method": TEXTS,
        "shipping_carrier": TEXTS,
        "status": STATUSES,
        "id": IDS,
        "shipping_tracking": TEXTS,
        "colour": st.just("red"),
    },
)
GOOD_ORDER = st.fixed_dictionaries(
    {"id": st.integers(-1, 6)},
    optional={
        "status": st.sampled_from([None, 1, 4, 8, 64, 128]),
        "shipping_carrier": st.sampled_from([None, "Royal Mail", "DPD", "\ud800"]),
        "shipping_tracking": st.sampled_from([None, "a", "ü"]),
    },
)
ORDERS = st.one_of(st.lists(GOOD_ORDER, max_size=8), st.lists(st.none() | ORDER, max_size=5), st.none())
OPTIONS: list[dict[str, Any]] = [
    {},
    {"numeric_strings": True, "shuffle_replies": "all"},
    {"auto_create": False, "unknown_orders": "null"},
    {"auto_create": False, "unknown_orders": "omit"},
    {"refusal": "no_path", "rejected_orders": {2: "no such order"}},
    {"refusal": "http_400", "rejected_orders": {2: "no such order"}},
    {"batch": "atomic", "rejected_orders": {2: "no such order"}},
    {"busy_orders": {1: 2, 3: -1}, "status_after_dispatch": 64, "terminal_statuses": frozenset({128})},
    {"remap": {"DPD": "DPD Local"}, "transitions": "on", "inaccessible_orders": frozenset({4})},
    {"max_batch": 3, "empty_list": "refuse"},
    {"scopes": ("order-it.order-manager.view",), "permission_refusal": "graphql"},
]
FIELDS = ("id", "shipping_carrier", "shipping_method", "status", "status_name")


async def ask(client: Client, bodies: list[bytes]) -> list[Answer]:
    """One call after the other."""
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": "application/json"}
    return [await client.raw("POST", client.address.graphql_url, data=body, headers=headers) for body in bodies]


async def seen(bodies: list[bytes], *, direct: bool, **options: Any) -> tuple[list[Any], list[Any], Any]:
    """What a new stand-in answers to these bodies, what it wrote, and what it counted."""
    with pytest.MonkeyPatch.context() as patch:
        if not direct:
            patch.setattr(endpoint, "read_direct", lambda _body: None)
        async with running() as client:
            await client.log_in("" if "scopes" in options else "order-it.order-manager.edit")
            client.set_options(**options)
            answers = [
                (each.status, json.loads(each.text), each.headers["Content-Type"]) for each in await ask(client, bodies)
            ]
            platform = client.simulator.platform
            calls = platform.calls.as_json()
            return answers, [_timeless(change) for change in platform.orders.history], calls


def _timeless(change: Change) -> Any:
    return (change.moment.call, change.order_id, change.sent, change.before, change.after)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "defaults")
@given(calls=st.lists(ORDERS, min_size=1, max_size=4))
@settings(max_examples=10)
async def test_both_ways_answer_and_write_the_same(options: dict[str, Any], calls: list[Any]) -> None:
    """Whatever is sent, under every option that judges or words an answer."""
    bodies = [json.dumps({"query": DOCUMENTED_MUTATION, "variables": {"orders": orders}}).encode() for orders in calls]

    assert await seen(bodies, direct=True, **options) == await seen(bodies, direct=False, **options)


@given(calls=st.lists(st.lists(GOOD_ORDER, max_size=8), min_size=1, max_size=4))
@settings(max_examples=20)
async def test_orders_are_judged_alike_whether_an_option_could_refuse_them_or_not(calls: list[Any]) -> None:
    """An option that concerns none of these orders leads past the short loop, and changes nothing."""
    bodies = [json.dumps({"query": DOCUMENTED_MUTATION, "variables": {"orders": orders}}).encode() for orders in calls]

    assert await seen(bodies, direct=True) == await seen(bodies, direct=True, rejected_orders={999: "nobody's"})


async def test_faults_strike_the_short_way_too() -> None:
    """What is planned to go wrong goes wrong: the second half fails, then everything does."""
    async with running() as client:
        await client.sim("POST", "faults", [{"kind": "partial", "next": 1}, {"kind": "masked", "next": 1}])
        partial = await client.update({"id": 1, "status": 4}, {"id": 2, "status": 4})
        masked = await client.update({"id": 1, "status": 8})

        assert partial.errors == [(MASKED, ["core", "updateOrders", 1])]
        assert (masked.entries, masked.errors) == (None, [(MASKED, ["core", "updateOrders"])])


@pytest.mark.parametrize(
    "document",
    [
        "mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { id other: status } } }",
        "mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { id ref } } }",
        "mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { id @include(if: true) } } }",
        "mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { ...f } } } fragment f on Order { id }",
        "mutation($o: [OrderInput]) { core { a: updateOrders(orders: $o) { id } } }",
        "mutation($o: [OrderInput]) { c: core { updateOrders(orders: $o) { id } } }",
        "mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { id } b: updateOrders(orders: $o) { id } } }",
        "mutation($o: [OrderInput!]) { core { updateOrders(orders: $o) { id } } }",
        "mutation($o: OrderInput) { core { updateOrders(orders: [$o]) { id } } }",
        "mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { colour } } }",
        "mutation { core { updateOrders(orders: []) { id } } }",
        "query { core { orders { items { id } } } }",
        "mutation($o: [OrderInput]) {",
        "",
    ],
)
def test_any_other_document_is_left_to_graphql(document: str) -> None:
    """One form is known; all others have no plan."""
    assert plan_of(document) is None


@pytest.mark.parametrize(
    "body",
    [
        {"query": DOCUMENTED_MUTATION},
        {"query": DOCUMENTED_MUTATION, "variables": {}},
        {"query": DOCUMENTED_MUTATION, "variables": {"orders": [], "more": []}},
        {"query": DOCUMENTED_MUTATION, "variables": {"others": []}},
        {"query": DOCUMENTED_MUTATION, "variables": {"orders": []}, "operationName": "Ship"},
        {"query": DOCUMENTED_MUTATION, "variables": {"orders": []}, "extensions": {}},
    ],
)
def test_any_other_body_is_left_to_graphql(body: dict[str, Any]) -> None:
    """Whatever is missing or beside it."""
    assert read_direct(json.dumps(body).encode()) is None


def test_the_documented_call_is_carried_out_directly() -> None:
    """The document of the public page, fields in its order."""
    body = {"query": DOCUMENTED_MUTATION, "variables": {"orders": [{"status": 4, "id": 7}, None]}}
    call = read_direct(json.dumps(body).encode())

    assert call is not None
    assert (call.plan.fields, call.orders) == (FIELDS, [{"id": 7, "status": 4}, None])


async def test_without_history_only_states_and_counters_are_kept() -> None:
    """What a long load needs: no memory for each change."""
    async with running(keep_history=False) as client:
        await client.update({"id": 1, "status": 4}, {"id": 1, "status": 8})
        platform = client.simulator.platform

        assert platform.orders.history == []
        assert (platform.orders.get(1).status, platform.orders.change_count) == (8, 2)
        assert [call.order_ids for call in platform.calls.recent] == [()]
