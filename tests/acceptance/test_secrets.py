"""Secrets and payloads stay out of everything the worker writes: its output at the level debug, and its own headers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.proxy import TcpProxy
from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker
from worker.simulator.options import Options

pytestmark = pytest.mark.broker

CLIENT_SECRET = "cl1ent+secret/planted"
BROKER_PASSWORD = "br0ker-passw0rd-planted"
CARRIER = "Planted Carrier Ltd"
METHOD = "Planted-Method-24"
EMAIL = "jane.planted@example.org"
ECHO = f"Carrier '{CARRIER}' does not offer {METHOD} to {EMAIL}"
USER = "planted-user"


@pytest.fixture
async def world(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[World]:
    """A platform that repeats values of orders in its errors, and a broker user with a password worth hiding."""
    options = Options(client_secret=CLIENT_SECRET, rejected_values={"shipping_method": {METHOD: ECHO}})
    broker.ctl("add_user", USER, BROKER_PASSWORD)
    broker.ctl("set_permissions", USER, ".*", ".*", ".*")
    async with World(broker, tmp_path, options) as made:
        yield made
    broker.ctl("delete_user", USER)


def personal(order_id: int, version: int, **fields: Any) -> dict[str, Any]:
    """An event full of values that are nobody's business."""
    return stamped(order_id, version, status=version, shipping_carrier=CARRIER, source=EMAIL, **fields)


def bad_events() -> list[dict[str, Any]]:
    """Events that are refused here or there, each with a planted value near the fault."""
    return [
        {"id": 901, "status": 4, "customer_email": EMAIL},
        {"id": 902, "status": EMAIL},
        {"id": 908, "status": 4, "sequence": EMAIL},
        {"id": 903, "shipping_carrier": [CARRIER], "source": EMAIL},
        {"id": 904, "status": 4, "occurred_at": EMAIL},
        personal(905, 4, shipping_method=METHOD),
        personal(906, 4, shipping_method=METHOD),
    ]


async def test_no_secret_and_no_payload_in_output_and_headers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with refusals, echoes, outages, a new token and a lost connection, searched for everything planted."""
    tokens = remembered_tokens(world, monkeypatch)
    async with TcpProxy(world.broker.port) as proxy:
        worker = await world.start(
            LOG_LEVEL="debug", AMQP_URL=f"amqp://{USER}:{BROKER_PASSWORD}@127.0.0.1:{proxy.port}/", CALL_TIMEOUT_S="1"
        )
        await world.publish(personal(order_id, 2) for order_id in range(1, 51))
        await world.until_applied(dict.fromkeys(range(1, 51), 2))
        await world.publish(bad_events())
        await world.publish_raw(f'{{"id": 907, "shipping_carrier": "{CARRIER}", {EMAIL}'.encode())
        await world.until_dead(8)
        for fault in faults(tokens[0]):
            await world.fault(**fault)
        world.simulator.platform.tokens.revoke_all()
        await world.publish(personal(order_id, 4) for order_id in range(1, 51))
        await world.until_applied(dict.fromkeys(range(1, 51), 4))
        await proxy.cut()
        await world.publish(personal(order_id, 8) for order_id in range(1, 51))
        await world.until_applied(dict.fromkeys(range(1, 51), 8))
        assert await worker.terminate() == 0

    ours = [json.dumps({k: v for k, v in d.headers.items() if k.startswith("ow-")}) for d in world.dead]
    planted = {CLIENT_SECRET, BROKER_PASSWORD, CARRIER, METHOD, EMAIL, *tokens}
    assert len(tokens) >= 2
    assert [line for line in worker.output.splitlines() if any(text in line for text in planted)] == []
    assert [line for line in ours if any(text in line for text in planted)] == []
    assert worker.heard("message.dead", reason="rejected")
    assert worker.heard("call.failed")
    assert worker.heard("batch.sent")


def remembered_tokens(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every access token from now on; the stand-in platform itself forgets them."""
    issued: list[str] = []
    issue = world.simulator.platform.tokens.issue

    def remember(client: str, scopes: frozenset[str], lifetime_s: float) -> str:
        issued.append(issue(client, scopes, lifetime_s))
        return issued[-1]

    monkeypatch.setattr(world.simulator.platform.tokens, "issue", remember)
    return issued


def faults(token: str) -> list[dict[str, Any]]:
    """Answers that repeat what must not be repeated."""
    said = f"Bearer {token} of secret {CLIENT_SECRET} is no good for {EMAIL}"
    return [
        {"kind": "status", "status": 500, "message": said},
        {"kind": "status", "status": 502, "message": said, "body": "html"},
        {"kind": "status", "status": 503, "message": said, "body": "graphql"},
        {"kind": "html", "message": said},
        {"kind": "truncated"},
        {"kind": "status", "status": 500, "message": said, "on": "token"},
    ]
