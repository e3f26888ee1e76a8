"""What the stand-in remembers: every change, every call, and which calls overlapped."""

import asyncio

from tests.contract.simulator_client import START_S, Clock, orders, running, until
from worker.simulator.calls import Calls
from worker.simulator.connections import Connection


async def test_every_change_is_remembered() -> None:
    """Time, client, call, fields sent, values before and after, over HTTP and by order."""
    clock = Clock()
    async with running(clock) as client:
        await client.update({"id": 1, "status": 4}, {"id": 2, "status": 4})
        clock.now_s += 5
        await client.update({"id": 1, "shipping_carrier": "Royal Mail"})
        text = (await client.sim("GET", "history?id=1")).text

        lines = [line for line in text.splitlines() if line]
        assert len(lines) == 2
        first, second = client.simulator.platform.orders.changes(frozenset({1}))
        assert (first.moment.at_s, first.moment.client, first.moment.call) == (START_S, "simulated-client", 1)
        assert (second.moment.at_s, second.moment.call, second.sent) == (START_S + 5, 2, ("shipping_carrier",))
        assert (first.before.status, first.after) == (1, second.before)
        assert second.after == second.before._replace(shipping_carrier="Royal Mail")


async def test_write_without_effect_is_remembered() -> None:
    """Sending the same values again is a change of its own: that is what an audit of double sends needs."""
    async with running() as client:
        for _ in range(2):
            await client.update({"id": 1, "status": 4})
        history = client.simulator.platform.orders.history

        assert [(change.before.status, change.after.status) for change in history] == [(1, 4), (4, 4)]


async def test_order_named_twice_is_written_twice() -> None:
    """The second entry builds on the first, and both come back."""
    async with running(shuffle_replies="off") as client:
        answer = await client.update({"id": 1, "status": 4}, {"id": 1, "shipping_carrier": "Owl"})

        shown = [(entry["status"], entry["shipping_carrier"]) for entry in answer.entries]
        assert shown == [(4, ""), (4, "Owl")]


async def test_counters_of_calls() -> None:
    """Calls started and answered, by operation and status, and how many entries they had."""
    async with running() as client:
        await client.update(*orders(3))
        await client.update()
        await client.graphql("{ core { orders { items { id } } } }")
        await client.graphql("{ nothing }")
        counters = (await client.sim("GET", "state")).payload["calls"]

        assert (counters["started"], counters["answered"], counters["in_flight"]) == (4, 4, 0)
        assert counters["by_operation"] == {"updateOrders": 2, "orders": 1}
        assert counters["by_status"] == {"200": 4}
        assert (counters["entries_per_call"], counters["mean_entries"]) == ({"0": 1, "3": 1}, 1.5)


async def test_overlapping_calls_of_one_order_are_counted() -> None:
    """Two calls in flight that name the same order are an overlap of that order, and of no other."""
    async with running(latency_s=0.1) as client:
        await asyncio.gather(client.update(*orders(2, first=1)), client.update(*orders(2, first=2)))
        calls = client.simulator.platform.calls

        assert (dict(calls.overlaps), calls.max_concurrent) == ({2: 1}, 2)


async def test_calls_one_after_the_other_do_not_overlap() -> None:
    """An answered call is not in flight any more."""
    async with running() as client:
        for _ in range(20):
            await client.update(*orders(3))

        calls = client.simulator.platform.calls
        assert (calls.overlaps.total(), calls.max_concurrent, calls.started) == (0, 1, 20)


async def test_call_given_up_is_not_in_flight() -> None:
    """The next call of a client that gave up is no overlap, however soon it comes."""
    async with running(latency_s=0.3) as client:
        calls = client.simulator.platform.calls
        first = asyncio.create_task(client.update(*orders(1)))
        await until(lambda: calls.by_operation["updateOrders"])
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await client.update(*orders(1))
        await until(lambda: not calls.open)

        assert (calls.overlaps.total(), calls.by_operation["updateOrders"]) == (0, 2)
        assert (calls.answered, calls.unanswered) == (1, 1)
        assert len(client.simulator.platform.orders.history) == 2


async def test_calls_are_listed_with_their_orders_and_faults() -> None:
    """The list says what each call was about and what was done to it."""
    async with running() as client:
        await client.sim("POST", "faults", {"kind": "truncated"})
        await client.update(*orders(2, first=1))
        text = (await client.sim("GET", "calls")).text

        assert '"operations":["updateOrders"],"order_ids":[1,2],"fault":"truncated"' in text


async def test_latency_is_split_before_and_after_applying() -> None:
    """The whole stays within its bounds; the point of applying moves."""
    async with running(latency_s=(0.1, 0.2)) as client:
        splits = [client.simulator.platform.latency() for _ in range(500)]

        assert all(0.1 <= before + after <= 0.2 + 1e-9 for before, after in splits)
        assert min(before for before, _ in splits) < 0.02
        assert min(after for _, after in splits) < 0.02


async def test_reset_keeps_options_and_tokens() -> None:
    """Everything that was recorded is gone; who may call and how it behaves stays."""
    async with running(max_batch=2, busy_orders={9: 1}) as client:
        await client.update(*orders(1), {"id": 9, "status": 4})
        await client.sim("POST", "faults", {"kind": "null", "standing": True})
        await client.sim("POST", "reset")
        busy_again = await client.update({"id": 9, "status": 4})
        state = (await client.sim("GET", "state")).payload

        assert (state["calls"]["started"], state["changes"], state["options"]["max_batch"]) == (1, 0, 2)
        assert busy_again.errors[0][0] == "Internal server error"


def test_counters_stay_consistent_when_reset_in_mid_call() -> None:
    """A call that was in flight at the reset is started and then answered, not answered only."""
    calls = Calls(Clock(), Clock())
    call = calls.start(Connection.__new__(Connection))
    calls.clear()
    calls.finish(call, 200)
    calls.finish(call, None)

    assert (calls.started, calls.answered, calls.unanswered, len(calls.open)) == (1, 1, 0, 0)
