"""The reader of RabbitMQ's management API against a scripted server: every failure is a value."""

import asyncio
import base64

import pytest

from tests.support.httpserver import Answer, cut_off, json_reply, refusing_port, reply, reset, serving, silent
from worker.adapters.management import MAX_BODY_BYTES, ManagementApi, Told

PASSWORD = "p4ss/word"


async def asked(url: str, *, timeout_s: float = 5.0) -> Told:
    """One question with a login in the address."""
    login = url.replace("http://", "http://me:p4ss%2Fword@")
    async with ManagementApi(login, timeout_s=timeout_s) as api:
        return await api.get("queues", "/", "order updates/work")


async def test_parts_of_the_path_are_escaped_and_the_login_is_a_header() -> None:
    """The vhost ``/`` is one part; the password is decoded, and not in the address."""
    async with serving(json_reply({"name": "q"})) as server:
        told = await asked(server.url)

    [seen] = server.seen
    scheme, _, login = seen.headers["Authorization"].partition(" ")
    assert (told.known, told.payload) == (True, {"name": "q"})
    assert seen.path == "/api/queues/%2F/order%20updates%2Fwork"
    assert (scheme, base64.b64decode(login).decode()) == ("Basic", f"me:{PASSWORD}")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (reply(401), 401),
        (reply(302, headers={"Location": "http://127.0.0.1:9/"}), 302),
        (reply(200, b"<html>"), 200),
        (reply(200, b" " * (MAX_BODY_BYTES + 1)), 200),
        (cut_off(200, b"{"), 0),
        (reset, 0),
    ],
)
async def test_what_is_no_answer_has_a_cause(answer: Answer, status: int) -> None:
    """Nothing raises, redirects are not followed, and no password is in the text."""
    async with serving(answer) as server:
        told = await asked(server.url)

    assert (told.known, told.status) == (False, status)
    assert told.cause
    assert PASSWORD not in repr(told)


async def test_a_server_that_is_silent_or_away_has_a_cause() -> None:
    """Within the deadline."""
    async with serving(silent) as server, refusing_port() as port:
        late = await asked(server.url, timeout_s=0.05)
        away = await asked(f"http://127.0.0.1:{port}/")

    assert late.cause == "no answer within 0.05 s"
    assert (away.status, "Refused" in away.cause or "Connect" in away.cause) == (0, True)


@pytest.mark.usefixtures("no_leaks")
async def test_cancelling_a_question_leaves_nothing_behind() -> None:
    """The cancellation passes unchanged."""
    async with serving(silent) as server:
        question = asyncio.create_task(asked(server.url))
        await server.arrived()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question

    assert question.cancelled()


@pytest.mark.parametrize("payload", [{}, [], {"messages_unacknowledged": "3"}, {"messages_unacknowledged": None}])
async def test_unacknowledged_messages_are_a_number_or_absent(payload: object) -> None:
    """A queue that the API does not know yet has no figure, which is not 0."""
    async with (
        serving(json_reply({"messages_unacknowledged": 3})) as server,
        serving(json_reply(payload)) as odd,
        serving(reply(404)) as missing,
    ):
        told = []
        for each in (server, odd, missing):
            async with ManagementApi(each.url) as api:
                told.append(await api.unacked("/", ["q"]))

    assert told == [{"q": 3}, {}, {}]
