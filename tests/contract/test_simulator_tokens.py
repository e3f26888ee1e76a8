"""The stand-in's OAuth endpoint and the checks of the tokens it gives out."""

import pytest

from tests.contract.simulator_client import Clock, running
from worker.simulator.options import EDIT_SCOPE, VIEW_SCOPE


async def test_token_reply_has_exactly_the_documented_keys() -> None:
    """The reply is the documented one: these three keys, in this order."""
    async with running() as client:
        answer = await client.ask_token()

        assert answer.status == 200
        assert list(answer.payload) == ["token_type", "expires_in", "access_token"]
        assert (answer.payload["token_type"], answer.payload["expires_in"]) == ("Bearer", 3600)


async def test_token_request_must_be_a_form() -> None:
    """JSON bodies are rejected, even with the right keys."""
    async with running() as client:
        answer = await client.raw("POST", client.address.oauth_url, json=client.form())

        assert (answer.status, answer.payload["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("missing", ["client_id", "client_secret", "grant_type", "scope"])
async def test_token_request_needs_all_four_keys(missing: str) -> None:
    """Each of the four documented keys is required, and the hint names the missing one."""
    async with running() as client:
        form = client.form()
        del form[missing]
        answer = await client.raw("POST", client.address.oauth_url, data=form)

        assert (answer.status, answer.payload["error"]) == (400, "invalid_request")
        assert missing in answer.payload["hint"]


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "wrong"}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"scope": "everything"}, 400, "invalid_scope"),
    ],
)
async def test_wrong_token_request_is_refused(changes: dict[str, str], status: int, error: str) -> None:
    """Each wrong value has the error of its own."""
    async with running() as client:
        answer = await client.ask_token(**changes)

        assert (status, error) == (answer.status, answer.payload["error"])
        assert "access_token" not in answer.payload
        assert (status == 401) == ("WWW-Authenticate" in answer.headers)


@pytest.mark.parametrize("token", ["", "unknown"])
async def test_call_without_a_known_token_is_unauthorised(token: str) -> None:
    """A missing or unknown token is a 401 with a REST error body, and nothing is applied."""
    async with running() as client:
        client.token = token
        answer = await client.update({"id": 1, "status": 4})

        assert (answer.status, answer.payload["error"]["message"]) == (401, "Authentication required")
        assert client.simulator.platform.orders.history == []


async def test_token_expires_after_its_lifetime() -> None:
    """A token works until its lifetime is over, and not a moment longer."""
    clock = Clock()
    async with running(clock, token_lifetime_s=60.0) as client:
        clock.now_s += 59.9
        before = await client.update({"id": 1, "status": 4})
        clock.now_s += 0.1
        after = await client.update({"id": 1, "status": 4})

        assert [before.status, after.status] == [200, 401]


async def test_earlier_token_stays_valid() -> None:
    """A new token does not end the life of an earlier one."""
    async with running() as client:
        await client.ask_token()

        assert (await client.update({"id": 1, "status": 4})).status == 200


async def test_revoked_tokens_are_unknown() -> None:
    """All tokens can be made unknown at once, as if the platform had lost them in mid-life."""
    async with running() as client:
        revoked = await client.sim("DELETE", "tokens")

        assert revoked.payload == {"revoked": 1}
        assert (await client.update({"id": 1, "status": 4})).status == 401


async def test_mutation_needs_the_edit_scope() -> None:
    """The missing permission is named, and nothing is applied."""
    async with running() as client:
        await client.log_in(VIEW_SCOPE)
        answer = await client.update({"id": 1, "status": 4})

        assert (403, f"Permission denied ({EDIT_SCOPE})") == (answer.status, answer.payload["error"]["message"])
        assert client.simulator.platform.orders.history == []


async def test_query_needs_the_view_scope() -> None:
    """Reading and writing are separate permissions."""
    async with running() as client:
        await client.log_in(EDIT_SCOPE)
        answer = await client.graphql("{ core { orders { items { id } } } }")

        assert (403, f"Permission denied ({VIEW_SCOPE})") == (answer.status, answer.payload["error"]["message"])


async def test_missing_scope_may_be_a_graphql_error() -> None:
    """Switched, the refusal is an error of the field."""
    async with running(permission_refusal="graphql") as client:
        await client.log_in(VIEW_SCOPE)
        answer = await client.update({"id": 1, "status": 4})

        assert answer.status == 200
        assert [(f"Permission denied ({EDIT_SCOPE})", ["core", "updateOrders"])] == answer.errors
        assert answer.entries is None


@pytest.mark.parametrize(("blank_scope", "status"), [("none", 403), ("all", 200)])
async def test_blank_scope(blank_scope: str, status: int) -> None:
    """A blank scope gives no permission, or all of them."""
    async with running(blank_scope=blank_scope) as client:
        await client.log_in("")

        assert status == (await client.update({"id": 1, "status": 4})).status
