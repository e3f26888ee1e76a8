"""What the GraphQL adapter reports for everything an HTTP server may answer: status, header and body, never an
exception."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.httpserver import Answer, HttpServer, cut_off, json_reply, raw, reply, serving
from worker.adapters.graphql import GraphqlPlatform
from worker.core.model import Scalar
from worker.core.report import NoAnswer, Reply

TOKEN = "t0ken-of-the-tests"
ORDER: dict[str, Scalar] = {
    "id": 46140199,
    "shipping_carrier": "Royal Mail",
    "shipping_method": "Tracked 24",
    "status": 4,
}
APPLIED = {"data": {"core": {"updateOrders": [{**ORDER, "status_name": "In Production"}]}}}
MUTATION = (
    "mutation($orders: [OrderInput]) { core { updateOrders(orders: $orders) "
    "{ id shipping_carrier shipping_method status status_name } } }"
)


@pytest.fixture(autouse=True)
async def nothing_left_open() -> AsyncIterator[None]:
    yield

    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with serving(json_reply(APPLIED)) as running:
        yield running


@pytest.fixture
async def platform(server: HttpServer) -> AsyncIterator[GraphqlPlatform]:
    async with GraphqlPlatform(server.url, timeout_s=10, max_body_bytes=10_000) as opened:
        yield opened


async def answered(platform: GraphqlPlatform, server: HttpServer, answer: Answer) -> Reply:
    server.script(answer)
    report = await platform.update_orders([ORDER], token=TOKEN)
    assert isinstance(report, Reply)
    return report


def words(text: str) -> list[str]:
    return text.replace("(", " ( ").replace(")", " ) ").split()


async def test_request_is_the_documented_one(platform: GraphqlPlatform, server: HttpServer) -> None:
    """Mutation, variables and headers are sent word for word as the platform documents them."""
    report = await platform.update_orders([ORDER], token=TOKEN)

    assert report == Reply(status=200, payload=APPLIED)
    (seen,) = server.seen
    assert seen.method == "POST"
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["Authorization"] == f"Bearer {TOKEN}"
    assert words(seen.json["query"]) == words(MUTATION)
    assert seen.json["variables"] == {"orders": [ORDER]}
    assert set(seen.json) == {"query", "variables"}


async def test_control_call_sends_an_empty_list(platform: GraphqlPlatform, server: HttpServer) -> None:
    """The control call is the same document with ``orders: []``; gql itself would leave empty variables out."""
    await platform.update_orders([], token=TOKEN)

    assert server.seen[0].json["variables"] == {"orders": []}


async def test_extra_fields_are_selected_behind_the_documented_ones(server: HttpServer) -> None:
    """EXTRA_FIELDS are asked back; a field that is selected anyway is not selected twice."""
    async with GraphqlPlatform(server.url, extra_fields={"shipping_tracking": "str", "status": "int"}) as platform:
        await platform.update_orders([ORDER], token=TOKEN)

    expected = MUTATION.replace("status_name", "status_name shipping_tracking")
    assert words(server.seen[0].json["query"]) == words(expected)


@pytest.mark.parametrize("name", ["", "a b", "a{b}", "1a", "a\n", "é"])
def test_extra_field_that_is_no_name_is_refused(name: str) -> None:
    """A setting cannot smuggle anything but a field name into the document."""
    with pytest.raises(ValueError, match="not a GraphQL field name"):
        GraphqlPlatform("http://127.0.0.1:1/", extra_fields=[name])


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 403, 404, 408, 413, 425, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("payload", [APPLIED, {"data": None, "errors": [{"message": "no"}]}, {"errors": []}, {}])
async def test_status_and_payload_both_arrive(
    platform: GraphqlPlatform, server: HttpServer, status: int, payload: dict[str, Any]
) -> None:
    """A GraphQL body never hides the status: 503 with data is no success, 401 with errors is no business error."""
    report = await answered(platform, server, json_reply(payload, status))

    assert (report.status, report.payload, report.readable) == (status, payload, True)


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"null", None),
        (b"[]", []),
        (b"12", 12),
        (b'"text"', "text"),
        (b"true", True),
        (b'{"data":null}', {"data": None}),
        (b'{"data":{"core":null},"errors":[]}', {"data": {"core": None}, "errors": []}),
        (b'\xef\xbb\xbf{"data":1}', {"data": 1}),
        (b'{"data":12345678901234567890}', {"data": 12345678901234567890}),
    ],
)
async def test_any_json_is_readable(platform: GraphqlPlatform, server: HttpServer, body: bytes, payload: Any) -> None:
    """Whatever JSON comes is handed over as it is; judging it is not the adapter's business."""
    report = await answered(platform, server, reply(200, body))

    assert (report.readable, report.payload) == (True, payload)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body><h1>502 Bad Gateway</h1></body></html>",
        b'{"data":{"core":',
        b'{"data":NaN}',
        b"\xff\xfe\x00",
        b'{"data":"\xff"}',
        b"[" * 4_000 + b"]" * 4_000,
        b"x" * 9_999,
    ],
)
@pytest.mark.parametrize("status", [200, 400, 503])
async def test_broken_body_is_unreadable_and_keeps_the_status(
    platform: GraphqlPlatform, server: HttpServer, status: int, body: bytes
) -> None:
    """HTML, broken, empty, deeply nested and non-UTF-8 bodies are told from JSON."""
    report = await answered(platform, server, reply(status, body))

    assert (report.status, report.readable, report.payload) == (status, False, None)
    assert len(report.excerpt) <= 200


async def test_html_is_excerpted_without_markup(platform: GraphqlPlatform, server: HttpServer) -> None:
    """People get the words of an error page."""
    report = await answered(platform, server, reply(502, b"<html>\n<h1>Bad <b>Gateway</b></h1>\n</html>"))

    assert report.excerpt == "Bad Gateway"


async def test_too_large_body_is_unreadable(platform: GraphqlPlatform, server: HttpServer) -> None:
    """Beyond the cap nothing is read, and the next call works."""
    report = await answered(platform, server, reply(200, b'{"data":"' + b"x" * 10_000 + b'"}'))

    assert report == Reply(status=200, readable=False, excerpt="body cut off or too large")
    assert await platform.update_orders([ORDER], token=TOKEN) == Reply(status=200, payload=APPLIED)


async def test_cap_counts_unpacked_bytes(platform: GraphqlPlatform, server: HttpServer) -> None:
    """A small gzip body that unpacks to megabytes is too large as well."""
    bomb = gzip.compress(b" " * 5_000_000)
    report = await answered(platform, server, reply(200, bomb, headers={"Content-Encoding": "gzip"}))

    assert (report.readable, report.payload) == (False, None)


async def test_gzip_is_unpacked(platform: GraphqlPlatform, server: HttpServer) -> None:
    """A compressed answer is an ordinary answer."""
    body = gzip.compress(b'{"data":{}}')
    report = await answered(platform, server, reply(200, body, headers={"Content-Encoding": "gzip"}))

    assert report == Reply(status=200, payload={"data": {}})


@pytest.mark.parametrize("value", ["120", "0", "Sat, 21 Nov 2026 10:00:00 GMT", "soon"])
@pytest.mark.parametrize("status", [429, 503, 200])
async def test_retry_after_is_passed_on_verbatim(
    platform: GraphqlPlatform, server: HttpServer, status: int, value: str
) -> None:
    """Seconds, dates and nonsense alike reach the verdict as they came."""
    report = await answered(platform, server, json_reply({}, status, headers={"Retry-After": value}))

    assert report.retry_after == value


async def test_redirect_is_an_answer(platform: GraphqlPlatform, server: HttpServer) -> None:
    """A redirected POST would become a GET elsewhere, with our token."""
    report = await answered(platform, server, reply(302, b"", headers={"Location": "/elsewhere"}))

    assert (report.status, len(server.seen)) == (302, 1)


async def test_cut_off_error_keeps_status_and_retry_after(platform: GraphqlPlatform, server: HttpServer) -> None:
    """A 429 whose body broke off is still a 429."""
    report = await answered(platform, server, cut_off(429, b'{"err', headers={"Retry-After": "7"}))

    assert report == Reply(status=429, readable=False, retry_after="7", excerpt="body cut off or too large")


@pytest.mark.parametrize(
    "answer",
    [
        cut_off(200, b'{"data":{"core"'),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Encoding: gzip\r\n\r\nnope"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        raw(b"this is no HTTP\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
        raw(b""),
    ],
    ids=["cut", "chunks", "gzip", "length", "garbage", "headers", "nothing"],
)
async def test_broken_http_is_no_answer(platform: GraphqlPlatform, server: HttpServer, answer: Answer) -> None:
    """Bytes went out and nothing usable came back: the outcome is unknown. The session stays usable."""
    server.script(answer)

    assert isinstance(await platform.update_orders([ORDER], token=TOKEN), NoAnswer)
    assert await platform.update_orders([ORDER], token=TOKEN) == Reply(status=200, payload=APPLIED)


@pytest.mark.parametrize(
    ("payload", "excerpt"),
    [
        ({"errors": [{"message": "no such order 46140199"}]}, "no such order 46140199"),
        ({"errors": [{"message": str(n)} for n in range(9)]}, "0 | 1 | 2"),
        ({"error": {"message": "Permission denied", "code": 0}}, "Permission denied"),
        ({"error": "invalid_token"}, "invalid_token"),
        ({"message": "Forbidden"}, "Forbidden"),
        ({"errors": ["plain text"]}, "plain text"),
        ({"errors": "plain text"}, "plain text"),
        ({"errors": {"message": "single"}}, "single"),
        ({"errors": [{"message": ["odd"]}]}, "JSON object without a message"),
        ({"errors": [{"message": "for Royal Mail, Bearer " + TOKEN}]}, "for ***, Bearer ***"),
        ({"errors": [{"message": "ask bob.smith@example.com now"}]}, "ask *** now"),
        ([], "JSON list, not an object"),
        (None, "JSON NoneType, not an object"),
    ],
)
async def test_excerpt_says_what_the_platform_said(
    platform: GraphqlPlatform, server: HttpServer, payload: Any, excerpt: str
) -> None:
    """The words of an error in either shape, masked; never the body as such."""
    report = await answered(platform, server, json_reply(payload, 400))

    assert report.excerpt == excerpt


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), "\ud800"])
async def test_value_that_json_cannot_carry_raises_before_sending(
    platform: GraphqlPlatform, server: HttpServer, value: Any
) -> None:
    """That is our own bug, not an outage: nothing is sent, and nothing is sent as null instead."""
    with pytest.raises((TypeError, ValueError)):
        await platform.update_orders([{"id": 1, "weight": value}], token=TOKEN)

    assert server.seen == []
