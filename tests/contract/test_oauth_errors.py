"""The OAuth token source on the bad days: who is to blame, what to check, and nothing secret in any of it."""

import asyncio
import logging
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.httpserver import (
    Answer,
    HttpServer,
    cut_off,
    hang_up,
    json_reply,
    raw,
    refusing_port,
    reply,
    reset,
    serving,
    silent,
    stalling,
)
from worker.adapters.oauth import ClientCredentials, OAuthTokenSource
from worker.core.errors import TokenRefused, TokenUnavailable

SECRET = "s3cret/of the+shop"


@pytest.fixture(autouse=True)
async def nothing_left_open() -> AsyncIterator[None]:
    yield

    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with serving(json_reply({"access_token": "one"})) as running:
        yield running


def at(url: str, *, timeout_s: float = 5.0) -> OAuthTokenSource:
    credentials = ClientCredentials(url=url, client_id="shop", client_secret=SECRET, scope="edit")
    return OAuthTokenSource(credentials, timeout_s=timeout_s)


async def failure(server: HttpServer, answer: Answer, *, timeout_s: float = 5.0) -> TokenRefused | TokenUnavailable:
    """What the first call raises; the second one must work again."""
    server.script(answer)
    async with at(server.url, timeout_s=timeout_s) as source:
        with pytest.raises((TokenRefused, TokenUnavailable)) as caught:
            await source.token()
        assert await source.token() == "one"
    assert isinstance(caught.value, TokenRefused | TokenUnavailable)
    return caught.value


@pytest.mark.parametrize(
    ("status", "payload", "words"),
    [
        (401, {"error": "invalid_client", "message": "Client authentication failed"}, "CLIENT_SECRET"),
        (400, {"error": "invalid_scope", "hint": "Check the `edit` scope"}, "OAUTH_SCOPE"),
        (400, {"error": "unauthorized_client"}, "support"),
        (400, {"error": "unsupported_grant_type"}, "OAUTH_URL"),
        (400, {"error": "invalid_grant"}, "CLIENT_ID"),
        (400, {"error": "invalid_request", "error_description": "The request is missing a parameter"}, "missing"),
        (403, {"error": "access_denied"}, "HTTP 403 access_denied"),
        (401, {"error": {"message": "Authentication required", "code": 0}}, "Authentication required"),
    ],
)
async def test_refusal_says_what_to_check(server: HttpServer, status: int, payload: Any, words: str) -> None:
    """An OAuth error of 400, 401 or 403 is about us; the text names the error and the setting."""
    error = await failure(server, json_reply(payload, status))

    assert isinstance(error, TokenRefused)
    assert words in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        reply(500),
        reply(503, b"<html>busy</html>"),
        json_reply({"error": "server_error"}, 500),
        json_reply({"error": "invalid_client"}, 503),
        json_reply({"error": "temporarily_unavailable"}, 400),
        json_reply({"error": {"message": "Rate limit exceeded", "code": 1}}, 400),
        json_reply({"message": "Too many requests"}, 429),
        reply(401, b"<html>Login</html>"),
        reply(403, b""),
        json_reply(["invalid_client"], 401),
        reply(404, b"no such page"),
        reply(302, headers={"Location": "/elsewhere"}),
        reply(200, b"<html>Welcome</html>"),
        reply(200, b'{"access_token":"cut'),
        reply(200, b"null"),
        reply(200, b"[" * 9_000 + b"]" * 9_000),
        reply(200, b'{"access_token":"' + b"x" * 70_000 + b'"}'),
        json_reply({"token_type": "Bearer"}),
        json_reply({"access_token": ""}),
        json_reply({"access_token": None}),
        json_reply({"access_token": 12}),
        json_reply({"access_token": "a\r\nX-Injected: b"}),
        json_reply({"access_token": "ключ"}),
        cut_off(200, b'{"access_token":'),
        raw(b"this is no HTTP\r\n\r\n"),
        reset,
        hang_up,
    ],
)
async def test_unusable_answer_is_unavailable(server: HttpServer, answer: Answer) -> None:
    """Everything else is the endpoint's trouble: wait and try again."""
    assert isinstance(await failure(server, answer), TokenUnavailable)


@pytest.mark.parametrize("value", ["30", "Sat, 21 Nov 2026 10:00:00 GMT"])
async def test_retry_after_is_carried_along(server: HttpServer, value: str) -> None:
    """As it came, for whoever waits."""
    error = await failure(server, reply(429, b"slow down", headers={"Retry-After": value}))

    assert isinstance(error, TokenUnavailable)
    assert error.retry_after == value


@pytest.mark.parametrize("answer", [silent, stalling], ids=["silent", "stalling"])
async def test_own_deadline_covers_the_whole_answer(server: HttpServer, answer: Answer) -> None:
    """Neither a silent endpoint nor half an answer holds anybody longer than the timeout."""
    error = await failure(server, answer, timeout_s=0.5)

    assert str(error) == "the token endpoint gave no answer within 0.5 s"


async def test_refused_port_is_unavailable() -> None:
    """The text says that nobody listens."""
    async with refusing_port() as port, at(f"http://127.0.0.1:{port}/") as source:
        with pytest.raises(TokenUnavailable, match="no answer from the token endpoint: ClientConnectorError"):
            await source.token()


async def test_redirect_never_carries_the_secret_elsewhere(server: HttpServer) -> None:
    """A 307 would repeat the form at the other address."""
    error = await failure(server, reply(307, headers={"Location": "/elsewhere"}))

    assert isinstance(error, TokenUnavailable)
    assert [seen.path for seen in server.seen] == ["/", "/"]


async def test_tls_to_a_plain_port_names_tls(server: HttpServer) -> None:
    """A person sees that the address or the certificate is to be looked at."""
    async with at(server.url.replace("http:", "https:")) as source:
        with pytest.raises(TokenUnavailable, match="TLS to the token endpoint failed"):
            await source.token()


async def test_untrusted_certificate_names_tls(tmp_path: Path) -> None:
    """A self-signed certificate gets no secret; with that certificate trusted, the same endpoint works."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221 nothing else runs here yet
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with serving(json_reply({"access_token": "one"}), ssl_context=context) as server:
        async with at(server.url) as source:
            with pytest.raises(TokenUnavailable, match=r"TLS to the token endpoint.*certificate verify failed"):
                await source.token()
        credentials = ClientCredentials(url=server.url, client_id="shop", client_secret=SECRET)
        async with OAuthTokenSource(credentials, ssl_context=trusting) as source:
            assert await source.token() == "one"

        assert len(server.seen) == 1


async def test_no_secret_reaches_logs_texts_or_reprs(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the client secret nor a token appear in any log at DEBUG level, error text, error chain or repr."""
    caplog.set_level(logging.DEBUG)
    echo = {"error": "invalid_client", "message": f"{SECRET} for shop, client_secret=s3cret%2Fof+the%2Bshop"}
    answers = [json_reply(echo, 401), json_reply(echo, 500), reply(200, SECRET.encode()), raw(SECRET.encode()), reset]
    shown = []
    for answer in answers:
        error = await failure(server, answer)
        shown += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    server.script(json_reply({"access_token": "t0ken-to-hide"}))
    async with at(server.url) as source:
        await source.token()
        shown += [repr(source), str(vars(source)), repr(source._credentials), caplog.text]

    assert not [text for text in shown if "s3cret" in text or "t0ken-to-hide" in text]
    assert any("***" in text for text in shown)
