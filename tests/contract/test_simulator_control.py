"""The control interface of the stand-in, as programs in any language use it."""

import json
from typing import Any

import pytest

from tests.contract.simulator_client import orders, running
from worker.simulator.behaviours import BEHAVIOURS
from worker.simulator.options import Options


@pytest.mark.parametrize(
    ("method", "path", "payload", "names"),
    [
        ("PATCH", "options", {"bacth": "atomic"}, "batch"),
        ("PATCH", "options", {"batch": "sometimes"}, "per_order"),
        ("PATCH", "options", {"latency_s": [2, 1]}, "latency_s"),
        ("PATCH", "options", {"latency_s": -1}, "latency_s"),
        ("PATCH", "options", {"latency_s": [1, 2, 3]}, "latency_s"),
        ("PATCH", "options", {"max_batch": -1}, "max_batch"),
        ("PATCH", "options", {"token_lifetime_s": 0}, "token_lifetime_s"),
        ("PATCH", "options", {"status_after_dispatch": 9}, "516"),
        ("PATCH", "options", [], "client_id"),
        ("PATCH", "options", None, "JSON"),
        ("POST", "faults", {"kind": "boredom"}, "reset_before"),
        ("POST", "faults", {"kind": "null", "nxet": 3}, "next"),
        ("POST", "faults", {"kind": "null", "next": 1, "rate": 0.5}, "one of"),
        ("POST", "faults", {"kind": "refuse"}, "for_s"),
        ("POST", "faults", {"kind": "masked", "on": "token"}, "on"),
        ("POST", "faults", {"kind": "masked", "applied": True}, "applied"),
        ("POST", "faults", [{"kind": "null"}, {"kind": "status", "status": 99}], "200..599"),
        ("POST", "orders", {"status": 4}, "required"),
        ("POST", "orders", {"id": 1, "colour": "red"}, "status"),
        ("GET", "orders?id=one", None, "?id=1"),
    ],
)
async def test_bad_input_is_told_what_is_allowed(method: str, path: str, payload: Any, names: str) -> None:
    """400, an error in words and what is allowed; nothing has been changed."""
    async with running() as client:
        before = client.simulator.options
        answer = await client.sim(method, path, payload)

        assert (answer.status, set(answer.payload)) == (400, {"error", "allowed"})
        assert names in json.dumps(answer.payload["allowed"])
        assert client.simulator.options == before
        assert client.simulator.platform.faults.pick("graphql") is None


@pytest.mark.parametrize("path", ["nothing", "reset"])
async def test_unknown_address_lists_the_known_ones(path: str) -> None:
    """A wrong path or method is answered with the list of what there is."""
    async with running() as client:
        answer = await client.sim("GET", path)

        assert answer.status in (404, 405)
        assert "POST /_sim/reset" in answer.payload["allowed"]


async def test_patch_keeps_other_options_and_put_resets_them() -> None:
    """PATCH adds to what is set, PUT starts from the defaults; both take effect at once."""
    async with running() as client:
        await client.sim("PATCH", "options", {"max_batch": 1})
        patched = await client.sim("PATCH", "options", {"rejected_orders": {"5": "No"}})
        refused = await client.update({"id": 5, "status": 4})
        put = await client.sim("PUT", "options", {"unknown_orders": "omit"})

        assert (patched.payload["max_batch"], patched.payload["rejected_orders"]) == (1, {"5": "No"})
        assert refused.errors[0][0] == "No"
        assert (put.payload["max_batch"], put.payload["unknown_orders"]) == (0, "omit")


async def test_secret_is_not_shown() -> None:
    """The client secret never leaves, although it is an invented one."""
    async with running(client_secret="planted-secret") as client:
        answers = [await client.sim("GET", path) for path in ("state", "options", "")]

        assert all("planted-secret" not in answer.text for answer in answers)


async def test_seeded_orders_can_be_read_back_as_ndjson() -> None:
    """Seeds keep what they do not name, are noted as made by ``control``, and come back one per line."""
    async with running(auto_create=False) as client:
        await client.sim("POST", "orders", [{"id": 2, "status": 4}, {"id": 1, "shipping_carrier": None}])
        await client.sim("POST", "orders", {"id": 2, "shipping_tracking": "AB12"})
        every, one = await client.sim("GET", "orders"), await client.sim("GET", "orders?id=2,3")

        assert [json.loads(line)["id"] for line in every.text.splitlines()] == [2, 1]
        assert every.headers["Content-Type"] == "application/x-ndjson"
        shown = json.loads(one.text)
        assert (shown["status"], shown["status_name"], shown["shipping_tracking"]) == (4, "In Production", "AB12")
        assert client.simulator.platform.orders.history[0].moment.client == "control"


async def test_long_lists_are_complete() -> None:
    """Lists are written in pieces; none is lost."""
    async with running() as client:
        await client.update(*orders(1201, first=1))
        lines = (await client.sim("GET", "history")).text.splitlines()

        assert [json.loads(line)["order_id"] for line in lines] == list(range(1, 1202))


async def test_planned_faults_are_shown_and_cleared() -> None:
    """What is planned can be read back, and taken back."""
    async with running() as client:
        await client.sim("POST", "faults", {"kind": "null", "next": 3})
        await client.sim("POST", "faults", {"kind": "status", "status": 503, "for_s": 60})
        await client.sim("POST", "faults", {"kind": "html", "rate": 0.5})
        planned = (await client.sim("GET", "faults")).payload
        await client.sim("DELETE", "faults")
        answer = await client.update(*orders(1))

        assert (planned["queue"], planned["random"]) == ([{"kind": "null", "next": 3}], [{"kind": "html", "rate": 0.5}])
        assert 0 < planned["standing"][0]["left_s"] <= 60
        assert answer.status == 200


async def test_page_says_documented_or_assumed_for_each_behaviour() -> None:
    """The page is HTML for people and JSON for programs, with the same content."""
    async with running() as client:
        page = await client.sim("GET", "")
        answer = await client.raw("GET", client.address.sim_url, headers={"Accept": "application/json"})

        assert page.headers["Content-Type"].startswith("text/html")
        assert page.text.count("<td>ASSUMED</td>") + page.text.count("<td>DOCUMENTED</td>") == len(BEHAVIOURS)
        assert {item["mark"] for item in answer.payload["behaviours"]} == {"DOCUMENTED", "ASSUMED"}


def test_every_option_belongs_to_a_stated_behaviour() -> None:
    """No switch without a line that says what is assumed, and no line about a switch that is gone."""
    stated = {name for item in BEHAVIOURS for name in item.options}

    assert stated == set(Options.__struct_fields__)
