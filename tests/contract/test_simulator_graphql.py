"""The stand-in parses and executes real GraphQL."""

from typing import Any

import pytest

from tests.contract.simulator_client import orders, running

EXAMPLE = {"id": 46140199, "shipping_carrier": "Royal Mail", "shipping_method": "Tracked 24", "status": 4}
EXAMPLE_REPLY = (
    '{"data":{"core":{"updateOrders":[{"id":46140199,"shipping_carrier":"Royal Mail","shipping_method":"Tracked 24",'
    '"status":4,"status_name":"In Production"}]}}}'
)


async def test_documented_example_is_answered_word_for_word() -> None:
    """The documented mutation with the documented variables gives the documented reply."""
    async with running() as client:
        answer = await client.update(EXAMPLE)

        assert (answer.status, answer.text) == (200, EXAMPLE_REPLY)
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_root_path_is_the_same_endpoint() -> None:
    """The documented address has no path."""
    async with running() as client:
        url = client.address.graphql_url.removesuffix("/graphql")
        body = {"query": "{ core { orders(filter: {id: 5}) { items { id } } } }"}
        answer = await client.raw("POST", url, json=body, headers={"Authorization": f"Bearer {client.token}"})

        assert answer.payload == {"data": {"core": {"orders": {"items": [{"id": 5}]}}}}


async def test_inline_literals_aliases_and_fragments() -> None:
    """Two aliased mutations with literals and a fragment, under a named operation, both take effect."""
    document = """
      query Other { core { __typename } }
      mutation Ship {
        core {
          first: updateOrders(orders: [{id: 1, status: 8}]) { ...short }
          second: updateOrders(orders: {id: 2, shipping_method: "Boat"}) { ...short how: shipping_method }
        }
      }
      fragment short on Order { number: id status_name }
    """
    async with running() as client:
        answer = await client.graphql(document, operationName="Ship")

        assert answer.payload["data"]["core"] == {
            "first": [{"number": 1, "status_name": "Dispatched"}],
            "second": [{"number": 2, "status_name": "Received", "how": "Boat"}],
        }


async def test_only_selected_fields_come_back() -> None:
    """A reply holds what was asked for and nothing else."""
    async with running() as client:
        answer = await client.graphql("mutation { core { updateOrders(orders: [{id: 1, status: 4}]) { ref } } }")

        assert list(answer.entries[0]) == ["ref"]
        assert len(answer.entries[0]["ref"]) == 16


@pytest.mark.parametrize(
    ("document", "variables", "part"),
    [
        ("mutation { core { updateOrders(orders: []) { colour } } }", None, "colour"),
        ("mutation { core { updateOrders(orders: [{id: 1, colour: 2}]) { id } } }", None, "colour"),
        ('mutation { core { updateOrders(orders: [{id: 1, status: "4"}]) { id } } }', None, "Int"),
        ("mutation { core { updateOrders(orders: [{id: 1.5}]) { id } } }", None, "Int64"),
        ("mutation { core { updateOrders(orders: [", None, "Syntax Error"),
        ("", None, "Syntax Error"),
        ("query A { core { __typename } } query B { core { __typename } }", None, "operation name"),
        ("mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { id } } }", {"o": [{"id": "x"}]}, "Int64"),
        ("mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { id } } }", {"o": [{"id": 2**63}]}, "Int64"),
        ("mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { id } } }", {"o": [{"colour": 1}]}, "colour"),
        ("mutation($o: [OrderInput]) { core { updateOrders(orders: $o) { id } } }", {"o": [{"status": 4.5}]}, "Int"),
    ],
)
async def test_wrong_document_gives_errors_without_data(document: str, variables: Any, part: str) -> None:
    """Unknown fields, bad types and bad syntax: errors, no data, nothing applied."""
    async with running() as client:
        answer = await client.graphql(document, variables)

        assert (answer.status, list(answer.payload)) == (200, ["errors"])
        assert part in answer.errors[0][0]
        assert client.simulator.platform.orders.history == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"query": 1}', b'{"query": "{a}", "variables": []}', b"\xff", b'{"query": NaN}', b"[" * 10**6],
    ids=["nothing", "cut", "list", "number", "list-of-variables", "no-utf8", "nan", "deep"],
)
async def test_body_that_is_no_request_is_a_rest_error(body: bytes) -> None:
    """What is no GraphQL request at all is answered in the REST API's shape."""
    async with running() as client:
        headers = {"Authorization": f"Bearer {client.token}"}
        answer = await client.raw("POST", client.address.graphql_url, data=body, headers=headers)

        # An empty list of variables is what PHP clients send for "none".
        accepted = b"[]" in body and b"query" in body
        assert (200 if accepted else 400) == answer.status
        assert accepted or answer.payload["error"]["code"] == 100


@pytest.mark.parametrize("order_id", [1, 46140199, 2**31, 15241567972973, 2**63 - 1])
async def test_ids_may_have_64_bits(order_id: int) -> None:
    """Ids beyond 32 bits go in and come back unharmed, as variables and as literals."""
    async with running() as client:
        as_variable = await client.update({"id": order_id, "status": 4})
        literal = f"mutation {{ core {{ updateOrders(orders: [{{id: {order_id}, status: 4}}]) {{ id }} }} }}"
        as_literal = await client.graphql(literal)

        assert [order_id, order_id] == [as_variable.entries[0]["id"], as_literal.entries[0]["id"]]


async def test_absent_fields_are_left_alone_and_null_clears_text() -> None:
    """An update is partial; null empties a text and leaves a status as it is."""
    async with running() as client:
        await client.update(EXAMPLE)
        answer = await client.update({"id": 46140199, "shipping_method": None, "status": None})

        entry = answer.entries[0]
        assert (entry["shipping_carrier"], entry["shipping_method"], entry["status"]) == ("Royal Mail", None, 4)


async def test_orders_query_pages_and_filters() -> None:
    """Orders come page by page, sorted by id, and can be filtered by more than their id."""
    document = """query($filter: Json, $page: Int) {
      core { orders(filter: $filter, page: $page, count: 2) { pages { pageCount current } items { id status } } }
    }"""
    async with running() as client:
        await client.update(*orders(5, first=10, status=4), {"id": 20, "status": 8})
        answer = await client.graphql(document, {"filter": {"status": [4]}, "page": 3})

        assert answer.payload["data"]["core"]["orders"] == {
            "pages": {"pageCount": 3, "current": 3},
            "items": [{"id": 14, "status": 4}],
        }


@pytest.mark.parametrize("arguments", ["filter: {colour: 1}", "filter: 5", "count: 251", "page: -1"])
async def test_search_that_makes_no_sense_is_an_error(arguments: str) -> None:
    """A search with unknown filters or an impossible page is refused by an error of its field."""
    async with running() as client:
        answer = await client.graphql(f"{{ core {{ orders({arguments}) {{ items {{ id }} }} }} }}")

        assert answer.errors[0][1] == ["core", "orders"]
        assert answer.payload["data"] == {"core": {"orders": None}}
