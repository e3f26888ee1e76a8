"""The OAuth token source on the good days: what it sends, how long it keeps a token, and one flight at a time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from tests.support.httpserver import Answer, HttpServer, gated, json_reply, reply, serving, silent
from worker.adapters.oauth import ClientCredentials, OAuthTokenSource
from worker.core.errors import TokenUnavailable

SECRET = "s3cret & more/+="


class FakeClock:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def granting(token: str, **more: Any) -> Answer:
    return json_reply({"token_type": "Bearer", "expires_in": 3600, "access_token": token, **more})


async def counting(_request: web.Request) -> web.StreamResponse:
    raise AssertionError("a request that the test did not expect")


@pytest.fixture(autouse=True)
async def nothing_left_open() -> AsyncIterator[None]:
    yield

    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with serving(counting) as running:
        yield running


@pytest.fixture
async def source(server: HttpServer, clock: FakeClock) -> AsyncIterator[OAuthTokenSource]:
    async with OAuthTokenSource(credentials(server), timeout_s=10, clock=clock) as opened:
        yield opened


def credentials(server: HttpServer, scope: str = "order-it.order-manager.edit") -> ClientCredentials:
    return ClientCredentials(url=server.url + "token", client_id="shop", client_secret=SECRET, scope=scope)


async def landed() -> None:
    """Wait for the one refresh in the background to end. Its own callback was there first, so it has run by then."""
    (flight,) = (task for task in asyncio.all_tasks() if task.get_name() == "oauth-token")
    await asyncio.wait({flight})


async def test_request_is_the_documented_form(source: OAuthTokenSource, server: HttpServer) -> None:
    """Form-encoded, with exactly the four documented keys in the body and nothing in the address."""
    server.script(granting("one"))

    assert await source.token() == "one"
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/token")
    assert seen.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Authorization" not in seen.headers
    assert parse_qsl(seen.body.decode(), strict_parsing=True) == [
        ("client_id", "shop"),
        ("client_secret", SECRET),
        ("grant_type", "client_credentials"),
        ("scope", "order-it.order-manager.edit"),
    ]


async def test_empty_scope_is_left_out(server: HttpServer) -> None:
    """Some uses of the platform want no scope; an empty one is not sent."""
    server.script(granting("one"))
    async with OAuthTokenSource(credentials(server, scope="")) as source:
        await source.token()

    assert [key for key, _ in parse_qsl(server.seen[0].body.decode())] == ["client_id", "client_secret", "grant_type"]


async def test_token_is_cached_until_shortly_before_it_expires(
    source: OAuthTokenSource, server: HttpServer, clock: FakeClock
) -> None:
    """With an hour to live it is asked for once, until 60 s remain."""
    server.script(granting("one"))
    await source.token()
    clock.now += 3600 - 60.001

    assert [await source.token() for _ in range(3)] == ["one"] * 3
    assert len(server.seen) == 1


@pytest.mark.parametrize(("lifetime", "early_s"), [(3600, 60), (600, 60), (300, 30), (10, 1), ("3600", 60)])
async def test_early_refresh_waits_for_nobody(
    source: OAuthTokenSource, server: HttpServer, clock: FakeClock, lifetime: Any, early_s: float
) -> None:
    """When 10 % or 60 s remain, whichever is smaller, a new one is fetched while the old one goes on being used."""
    gate = asyncio.Event()
    server.script(granting("old", expires_in=lifetime), gated(gate, granting("new")))
    await source.token()
    clock.now += float(lifetime) - early_s
    meanwhile = [await source.token() for _ in range(3)]
    gate.set()
    await landed()

    assert meanwhile == ["old"] * 3
    assert await source.token() == "new"
    assert len(server.seen) == 2


@pytest.mark.parametrize("lifetime", [None, "soon", "", -5, 0, True, [], "NaN"])
async def test_missing_or_odd_lifetime_counts_as_an_hour(
    source: OAuthTokenSource, server: HttpServer, clock: FakeClock, lifetime: Any
) -> None:
    """The platform documents 3600 s; an answer without a usable number is taken for that."""
    server.script(granting("one", expires_in=lifetime), granting("two"))
    await source.token()
    clock.now += 3539
    assert await source.token() == "one"
    clock.now += 61

    assert await source.token() == "two"


async def test_lifetime_is_capped_at_a_day(source: OAuthTokenSource, server: HttpServer, clock: FakeClock) -> None:
    """A lifetime in milliseconds, or without end, does not keep a token for ever."""
    server.script(reply(200, b'{"access_token":"one","expires_in":1e300}'), granting("two"))
    await source.token()
    clock.now += 86_400

    assert await source.token() == "two"


async def test_lifetime_runs_from_before_the_request(
    source: OAuthTokenSource, server: HttpServer, clock: FakeClock
) -> None:
    """A slow answer does not make a token live longer than the platform thinks."""
    gate = asyncio.Event()
    server.script(gated(gate, granting("one", expires_in=100)), granting("two"))
    waiting = asyncio.create_task(source.token())
    await server.arrived()
    clock.now += 30
    gate.set()
    await waiting
    age_s = source.age_s
    clock.now += 70

    assert (age_s, await source.token()) == (30, "two")


async def test_age_is_known_only_with_a_token(source: OAuthTokenSource, server: HttpServer, clock: FakeClock) -> None:
    """None before the first token and after it was refused."""
    before = source.age_s
    server.script(granting("one"))
    await source.token()
    clock.now += 12
    held = source.age_s
    source.invalidate("one")

    assert (before, held, source.age_s) == (None, 12, None)


async def test_concurrent_callers_share_one_flight(source: OAuthTokenSource, server: HttpServer) -> None:
    """50 callers without a token make one request."""
    gate = asyncio.Event()
    server.script(gated(gate, granting("one")))
    callers = [asyncio.create_task(source.token()) for _ in range(50)]
    await server.arrived()
    gate.set()

    assert await asyncio.gather(*callers) == ["one"] * 50
    assert len(server.seen) == 1


async def test_concurrent_callers_share_one_failure(source: OAuthTokenSource, server: HttpServer) -> None:
    """All of them get the error, each an exception of its own, and the next caller tries again."""
    server.script(reply(503), granting("one"))
    outcomes = await asyncio.gather(*[source.token() for _ in range(50)], return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {TokenUnavailable}
    assert len({id(outcome) for outcome in outcomes}) == 50
    assert await source.token() == "one"
    assert len(server.seen) == 2


async def test_cancelling_one_waiter_keeps_the_flight_for_the_others(
    source: OAuthTokenSource, server: HttpServer
) -> None:
    """The one that started the flight may go, and the others still get their token from it."""
    gate = asyncio.Event()
    server.script(gated(gate, granting("one")))
    first, *others = [asyncio.create_task(source.token()) for _ in range(3)]
    await server.arrived()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()

    assert await asyncio.gather(*others) == ["one"] * 2
    assert len(server.seen) == 1


async def test_flight_that_everybody_left_still_lands(source: OAuthTokenSource, server: HttpServer) -> None:
    """Its token is there for the next caller."""
    gate = asyncio.Event()
    server.script(gated(gate, granting("one")))
    only = asyncio.create_task(source.token())
    await server.arrived()
    only.cancel()
    await asyncio.wait({only})
    gate.set()

    assert await source.token() == "one"
    assert len(server.seen) == 1


async def test_invalidated_token_is_fetched_anew(source: OAuthTokenSource, server: HttpServer) -> None:
    """What the platform refused is not handed out again."""
    server.script(granting("one"), granting("two"))
    source.invalidate(await source.token())

    assert await source.token() == "two"


async def test_invalidating_an_older_token_changes_nothing(source: OAuthTokenSource, server: HttpServer) -> None:
    """50 calls that were refused with the same token lead to one fetch, not to 50."""
    server.script(granting("one"), granting("two"))
    old = await source.token()
    source.invalidate(old)
    await source.token()
    for _ in range(49):
        source.invalidate(old)

    assert await source.token() == "two"
    assert len(server.seen) == 2


async def test_failing_early_refresh_keeps_the_valid_token(
    source: OAuthTokenSource, server: HttpServer, clock: FakeClock
) -> None:
    """It goes on being used, the endpoint is asked every 15 s and not on every call, and in the end it must answer."""
    server.script(granting("old"), reply(503), json_reply({"error": "invalid_client"}, 401), reply(503))
    await source.token()
    asked: list[int] = []
    for step_s in (3540, 14.9, 0.1):
        clock.now += step_s
        handed_out = {await source.token() for _ in range(3)}
        if len(asked) != 1:
            await landed()
        handed_out.add(await source.token())
        asked.append(len(server.seen))
        assert handed_out == {"old"}
    clock.now += 45
    with pytest.raises(TokenUnavailable):
        await source.token()

    assert [*asked, len(server.seen)] == [2, 2, 3, 4]


async def test_close_ends_the_flight_and_its_waiters(server: HttpServer) -> None:
    """Waiting callers get an error, not a cancellation that nobody asked for; closing twice is harmless."""
    server.script(silent)
    source = OAuthTokenSource(credentials(server), timeout_s=30)
    waiting = asyncio.create_task(source.token())
    await server.arrived()
    await source.close()
    await source.close()

    with pytest.raises(TokenUnavailable, match="closed"):
        await waiting
    with pytest.raises(TokenUnavailable, match="closed"):
        await source.token()
