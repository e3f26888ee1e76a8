"""What the GraphQL adapter reports when no answer comes: certainly not sent, perhaps sent, or not trusted."""

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
    gated,
    hang_up,
    json_reply,
    mute_port,
    raw,
    refusing_port,
    reply,
    reset,
    serving,
    silent,
    stalling,
)
from worker.adapters.graphql import GraphqlPlatform
from worker.core.model import Scalar
from worker.core.report import Insecure, NoAnswer, NotSent, Reply

TOKEN = "s3cret.token/of+the~tests=="
APPLIED: dict[str, Any] = {"data": {"core": {"updateOrders": []}}}
SENT = NoAnswer(cause="no answer within 0.2 s")
NOT_SENT = NotSent(cause="no answer within 0.2 s: no connection")


@pytest.fixture(autouse=True)
async def nothing_left_open() -> AsyncIterator[None]:
    yield

    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with serving(json_reply(APPLIED)) as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh self-signed certificate for 127.0.0.1, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "self-signed.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
async def tls_server(certificate: Path) -> AsyncIterator[HttpServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with serving(json_reply(APPLIED), ssl_context=context) as running:
        yield running


async def test_refused_port_is_not_sent() -> None:
    """Nobody listened, so nothing was sent."""
    async with refusing_port() as port, GraphqlPlatform(f"http://127.0.0.1:{port}/", timeout_s=5) as platform:
        report = await platform.update_orders([], token=TOKEN)

    assert isinstance(report, NotSent)
    assert "ClientConnectorError" in report.cause
    assert str(port) in report.cause


async def test_unknown_host_is_not_sent() -> None:
    """A name without address (RFC 6761 reserves .invalid for that) reaches nobody, whatever the resolver does."""
    async with GraphqlPlatform("http://platform.invalid/", timeout_s=5) as platform:
        assert isinstance(await platform.update_orders([], token=TOKEN), NotSent)


async def test_connecting_past_the_deadline_is_not_sent() -> None:
    """The deadline ends a connect that never finishes, and then nothing was written."""
    async with mute_port() as port, GraphqlPlatform(f"http://127.0.0.1:{port}/", timeout_s=0.2) as platform:
        assert await platform.update_orders([], token=TOKEN) == NOT_SENT


async def test_waiting_for_a_connection_past_the_deadline_is_not_sent(server: HttpServer) -> None:
    """A call that found all connections busy until its deadline has sent nothing."""
    gate = asyncio.Event()
    server.script(gated(gate, json_reply(APPLIED)))
    async with GraphqlPlatform(server.url, timeout_s=30, max_connections=1) as platform:
        busy = asyncio.create_task(platform.update_orders([], token=TOKEN))
        await server.arrived()
        platform.timeout_s = 0.2
        waiting = await platform.update_orders([], token=TOKEN)
        gate.set()

        assert (await busy, waiting) == (Reply(status=200, payload=APPLIED), NOT_SENT)
    assert len(server.seen) == 1


async def test_silence_past_the_deadline_is_no_answer(server: HttpServer) -> None:
    """Sent, and no answer in time: the outcome is unknown."""
    server.script(silent)
    async with GraphqlPlatform(server.url, timeout_s=0.2) as platform:
        assert await platform.update_orders([], token=TOKEN) == SENT
        assert await platform.update_orders([], token=TOKEN) == Reply(status=200, payload=APPLIED)


async def test_body_past_the_deadline_is_no_answer(server: HttpServer) -> None:
    """The deadline covers the body too, not only the headers."""
    server.script(stalling)
    async with GraphqlPlatform(server.url, timeout_s=0.2) as platform:
        assert await platform.update_orders([], token=TOKEN) == SENT


@pytest.mark.parametrize("answer", [reset, hang_up, raw(b"HTTP/1.1 200")], ids=["reset", "hang-up", "half a head"])
@pytest.mark.parametrize("calls_before", [0, 1], ids=["fresh connection", "kept connection"])
async def test_lost_connection_is_no_answer(server: HttpServer, answer: Answer, calls_before: int) -> None:
    """A reset may mean done or not done, on a fresh connection and on a reused one alike, and is never repeated."""
    async with GraphqlPlatform(server.url, timeout_s=5) as platform:
        for _ in range(calls_before):
            await platform.update_orders([], token=TOKEN)
        server.script(answer)
        report = await platform.update_orders([], token=TOKEN)

    assert isinstance(report, NoAnswer)
    assert len(server.seen) == calls_before + 1
    assert len({seen.peer for seen in server.seen}) == 1


async def test_untrusted_certificate_is_insecure(tls_server: HttpServer) -> None:
    """A self-signed certificate is refused before anything is sent."""
    async with GraphqlPlatform(tls_server.url, timeout_s=5) as platform:
        report = await platform.update_orders([], token=TOKEN)

    assert isinstance(report, Insecure)
    assert "certificate verify failed" in report.cause
    assert tls_server.seen == []


async def test_trusted_certificate_is_accepted(tls_server: HttpServer, certificate: Path) -> None:
    """With that certificate in the context the same server answers, and TLS connections close without a warning."""
    context = ssl.create_default_context(cafile=str(certificate))
    async with GraphqlPlatform(tls_server.url, timeout_s=5, ssl_context=context) as platform:
        assert await platform.update_orders([], token=TOKEN) == Reply(status=200, payload=APPLIED)


async def test_wrong_name_in_the_certificate_is_insecure(tls_server: HttpServer, certificate: Path) -> None:
    """A trusted certificate for another name is no proof of who answers."""
    context = ssl.create_default_context(cafile=str(certificate))
    url = tls_server.url.replace("127.0.0.1", "localhost")
    async with GraphqlPlatform(url, timeout_s=5, ssl_context=context) as platform:
        report = await platform.update_orders([], token=TOKEN)

    assert isinstance(report, Insecure)
    assert tls_server.seen == []


async def test_tls_to_a_plain_port_is_insecure(server: HttpServer) -> None:
    """https where http is spoken: a person has to look at the address."""
    async with GraphqlPlatform(server.url.replace("http:", "https:"), timeout_s=5) as platform:
        assert isinstance(await platform.update_orders([], token=TOKEN), Insecure)


async def test_plain_http_to_a_tls_port_is_no_answer(tls_server: HttpServer) -> None:
    """http where TLS is spoken: bytes went out, so it does not count as never sent."""
    async with GraphqlPlatform(tls_server.url.replace("https:", "http:"), timeout_s=5) as platform:
        assert isinstance(await platform.update_orders([], token=TOKEN), NoAnswer)


async def test_no_secret_reaches_logs_texts_or_reprs(server: HttpServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the token nor the order's values appear in any log at DEBUG level, report text or repr."""
    caplog.set_level(logging.DEBUG)
    echo = f"<p>Authorization: Bearer {TOKEN} carrier=Evri Courier {TOKEN[:12]}</p>".encode()
    named = json_reply({"errors": [{"message": TOKEN}]})
    server.script(reply(400, echo), reset, raw(b"HTTP/1.1 200 \r\n" + echo), named)
    async with GraphqlPlatform(server.url, timeout_s=5) as platform:
        orders: list[dict[str, Scalar]] = [{"id": 1, "shipping_carrier": "Evri Courier"}]
        reports = [await platform.update_orders(orders, token=TOKEN) for _ in range(4)]
        shown = [repr(platform), str(vars(platform)), caplog.text]
    shown += [report.excerpt if isinstance(report, Reply) else repr(report) for report in reports]

    assert [type(report) for report in reports] == [Reply, NoAnswer, NoAnswer, Reply]
    assert not [text for text in shown if TOKEN in text or "Evri" in text]
