"""Every fault of the stand-in, as a client sees it over real HTTP, and whether the update was applied."""

import asyncio
import errno
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from tests.contract.simulator_client import Client, orders, running, until


async def fault(client: Client, **fields: Any) -> None:
    """Plan a fault over HTTP."""
    answer = await client.sim("POST", "faults", fields)
    assert answer.status == 200, answer.text


def applied(client: Client) -> int:
    """How many changes were made."""
    return len(client.simulator.platform.orders.history)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 429, 500, 502, 503, 504])
async def test_status_fault(status: int) -> None:
    """Any HTTP status, with a REST error body and nothing applied; the call after it is right again."""
    async with running() as client:
        await fault(client, kind="status", status=status)
        answer = await client.update(*orders(1))
        after = await client.update(*orders(1))

        assert (answer.status, after.status, applied(client)) == (status, 200, 1)
        assert answer.payload["error"]["code"] == 0
        assert "Retry-After" not in answer.headers


async def test_status_after_applying() -> None:
    """A gateway may time out although the update went through."""
    async with running() as client:
        await fault(client, kind="status", status=504, body="html", applied=True)
        answer = await client.update(*orders(1))

        assert (answer.status, answer.text[:15], applied(client)) == (504, "<!DOCTYPE html>", 1)


@pytest.mark.parametrize(("body", "start"), [("graphql", '{"errors":'), ("html", "<!DOCTYPE"), ("empty", "")])
async def test_bodies_of_a_status_fault(body: str, start: str) -> None:
    """An error status comes with the body that was asked for."""
    async with running() as client:
        await fault(client, kind="status", status=502, body=body)
        answer = await client.update(*orders(1))

        assert answer.text.startswith(start)
        assert bool(answer.text) == bool(start)


async def test_retry_after_in_seconds_and_as_date() -> None:
    """Both forms of the header that HTTP knows."""
    async with running() as client:
        await fault(client, kind="status", status=429, retry_after=7)
        await fault(client, kind="status", status=503, retry_after_date_s=60)
        seconds, date = await client.update(*orders(1)), await client.update(*orders(1))

        assert (seconds.status, seconds.headers["Retry-After"]) == (429, "7")
        left = parsedate_to_datetime(date.headers["Retry-After"]).timestamp() - client.simulator.platform.wall()
        assert 50 < left <= 61


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("empty", ""),
        ("null", "null"),
        ("errors", '{"errors":[{"message":"Internal server error"}]}'),
        ("no_data", '{"data":null}'),
    ],
)
@pytest.mark.parametrize("is_applied", [False, True])
async def test_answers_that_say_nothing(kind: str, text: str, is_applied: bool) -> None:
    """200 without a list: from the answer nobody can tell whether the update was applied."""
    async with running() as client:
        await fault(client, kind=kind, applied=is_applied)
        answer = await client.update(*orders(1))

        assert (answer.status, answer.text, applied(client)) == (200, text, int(is_applied))


async def test_html_fault() -> None:
    """A maintenance page with status 200."""
    async with running() as client:
        await fault(client, kind="html")
        answer = await client.update(*orders(1))

        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert applied(client) == 0


async def test_truncated_fault() -> None:
    """A complete HTTP answer whose JSON ends in the middle; the update was applied."""
    async with running() as client:
        await fault(client, kind="truncated")
        answer = await client.update(*orders(1))

        assert answer.text.startswith('{"data":{"core":{"updateOrders":[{"id":')
        assert not answer.text.endswith("}")
        assert applied(client) == 1


async def test_cut_short_fault() -> None:
    """The body breaks off and the connection ends; the update was applied."""
    async with running() as client:
        await fault(client, kind="cut_short")
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.update(*orders(1))

        assert applied(client) == 1


async def test_partial_fault() -> None:
    """The second half is null, blamed by paths and not applied."""
    async with running(shuffle_replies="off") as client:
        await fault(client, kind="partial")
        answer = await client.update(*orders(4, first=1))

        assert [entry and entry["id"] for entry in answer.entries] == [1, 2, None, None]
        assert answer.errors == [("Internal server error", ["core", "updateOrders", index]) for index in (2, 3)]
        assert applied(client) == 2


async def test_masked_fault() -> None:
    """ "Internal server error" for the whole mutation, also for an empty list; nothing applied."""
    async with running() as client:
        await fault(client, kind="masked", standing=True)
        answers = [await client.update(*orders(2)), await client.update()]

        assert [answer.entries for answer in answers] == [None, None]
        assert answers[1].errors == [("Internal server error", ["core", "updateOrders"])]
        assert applied(client) == 0


@pytest.mark.parametrize(("kind", "changes"), [("reset_before", 0), ("reset_after", 1)])
async def test_reset_fault(kind: str, changes: int) -> None:
    """The client sees a reset either way; only the history tells which it was."""
    async with running() as client:
        await fault(client, kind=kind)
        with pytest.raises(aiohttp.ClientConnectionError) as caught:
            await client.update(*orders(1))

        assert isinstance(caught.value, OSError)
        assert caught.value.errno == errno.ECONNRESET
        assert applied(client) == changes
        assert client.simulator.platform.calls.unanswered == 1


@pytest.mark.parametrize("is_applied", [False, True])
async def test_hang_fault(is_applied: bool) -> None:
    """No answer until the client gives up; then the call is over."""
    async with running() as client:
        await fault(client, kind="hang", applied=is_applied)
        call = asyncio.create_task(client.update(*orders(1)))
        calls = client.simulator.platform.calls
        await until(lambda: calls.open and (applied(client) or not is_applied) and calls.recent[0].operations)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: not calls.open)

        assert (calls.unanswered, applied(client)) == (1, int(is_applied))


@pytest.mark.parametrize("where", ["before", "after"])
async def test_delayed_call_is_applied_although_its_client_gave_up(where: str) -> None:
    """A call that its client gave up is carried out all the same, before or after that moment."""
    async with running() as client:
        await fault(client, kind="delay", seconds=0.2, where=where)
        call = asyncio.create_task(client.update(*orders(1)))
        await until(lambda: client.simulator.platform.calls.by_operation["updateOrders"])
        before = applied(client)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: not client.simulator.platform.calls.open)

        assert (before, applied(client)) == (0 if where == "before" else 1, 1)


async def test_late_fault_is_applied_after_the_reset() -> None:
    """The client is told nothing, sends newer values, and then the old ones arrive."""
    async with running() as client:
        await fault(client, kind="late", seconds=0.2)
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.update({"id": 1, "status": 4})
        await client.update({"id": 1, "status": 8})
        await until(lambda: applied(client) == 2)

        history = client.simulator.platform.orders.history
        assert [change.after.status for change in history] == [8, 4]
        assert client.simulator.platform.calls.overlaps.total() == 0


async def test_refused_connections_come_back_on_the_same_port() -> None:
    """While the platform refuses connections the control interface works, and the port comes back."""
    async with running() as client:
        await fault(client, kind="refuse", standing=True)
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await client.update(*orders(1))
        while_down = await client.sim("GET", "state")
        await client.sim("DELETE", "faults")
        answer = await client.update(*orders(1))

        assert caught.value.errno == errno.ECONNREFUSED
        assert (while_down.payload["listening"], answer.status) == (False, 200)


async def test_going_down_resets_calls_in_flight() -> None:
    """A platform that goes down takes its connections with it; what it had not applied yet comes late or never."""
    async with running() as client:
        await fault(client, kind="hang")
        call = asyncio.create_task(client.update(*orders(1)))
        await until(lambda: client.simulator.platform.calls.by_operation["updateOrders"])
        await fault(client, kind="refuse", standing=True)
        outcome = await asyncio.gather(call, return_exceptions=True)

        assert isinstance(outcome[0], aiohttp.ClientConnectionError)
        assert applied(client) == 0


async def test_refusal_ends_by_itself() -> None:
    """Down for so many seconds, without anybody's help."""
    async with running() as client:
        await fault(client, kind="refuse", for_s=0.05)
        down = client.simulator.is_listening
        await until(lambda: client.simulator.is_listening)
        answer = await client.update(*orders(1))

        assert (down, answer.status) == (False, 200)


async def test_simulator_ends_while_down_and_while_calls_hang() -> None:
    """The end does not wait for the end of a fault."""
    async with running() as client:
        await fault(client, kind="hang", standing=True)
        call = asyncio.create_task(client.update(*orders(1)))
        await until(lambda: client.simulator.platform.calls.by_operation["updateOrders"])
    outcome = await asyncio.gather(call, return_exceptions=True)
    async with running() as client:
        await fault(client, kind="refuse", for_s=60)

    assert isinstance(outcome[0], aiohttp.ClientError)


@pytest.mark.parametrize(
    "kind",
    ["status", "html", "empty", "null", "truncated", "delay"],
)
async def test_token_endpoint_has_faults_too(kind: str) -> None:
    """A fault on the token endpoint leaves GraphQL alone."""
    async with running() as client:
        await fault(client, kind=kind, on="token", seconds=0.01)
        token, call = await client.ask_token(), await client.update(*orders(1))
        after = await client.ask_token()

        assert call.status == after.status == 200
        assert token.status == (500 if kind == "status" else 200)
        assert ('"access_token":"' in token.text and token.text.endswith("}")) == (kind == "delay")


async def test_token_endpoint_can_hang() -> None:
    """No token until the client gives up."""
    async with running() as client:
        await fault(client, kind="hang", on="token")
        with pytest.raises(TimeoutError):
            await client.raw(
                "POST", client.address.oauth_url, data=client.form(), timeout=aiohttp.ClientTimeout(total=0.05)
            )

        assert (await client.ask_token()).status == 200


@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "cut_short"])
async def test_token_endpoint_cuts_connections(kind: str) -> None:
    """The token endpoint can break off as well."""
    async with running() as client:
        await fault(client, kind=kind, on="token")
        with pytest.raises(aiohttp.ClientError):
            await client.ask_token()

        assert (await client.ask_token()).status == 200
