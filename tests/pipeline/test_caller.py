"""One call, judged: which token it used, when it is repeated, and that it never raises for what the world does."""

from collections import deque
from collections.abc import Mapping, Sequence

import pytest

from tests.pipeline.fakes import FakeTokens
from tests.support.modelplatform import ModelPlatform, reply, rest_error
from worker.caller import Caller
from worker.core.errors import TokenRefused, TokenUnavailable
from worker.core.model import Fields, Scalar
from worker.core.report import CallReport, CredentialsRefused, Insecure, NoAnswer, NotSent, Reply
from worker.core.verdict import Call, Item, Rules

REQUESTED: Mapping[int, Fields] = {1: {"status": 4}, 2: {"shipping_carrier": "Royal Mail"}}
REFUSED = rest_error("invalid token", 401)


class Script:
    """Implements ``ports.Platform``: the answers in their order, the model's own afterwards."""

    def __init__(self, *answers: CallReport) -> None:
        self.answers = deque(answers)
        self.model = ModelPlatform()
        self.calls: list[tuple[Sequence[Mapping[str, Scalar]], str]] = []

    async def update_orders(self, orders: Sequence[Mapping[str, Scalar]], *, token: str) -> CallReport:
        self.calls.append((orders, token))
        if self.answers:
            return self.answers.popleft()
        values = {order["id"]: {k: v for k, v in order.items() if k != "id"} for order in orders}
        return self.model({order_id: fields for order_id, fields in values.items() if isinstance(order_id, int)})


def caller(platform: Script, tokens: FakeTokens | None = None) -> Caller:
    return Caller(platform, tokens or FakeTokens(), Rules())


async def test_orders_are_sent_with_their_ids_and_only_their_fields() -> None:
    """Absent fields stay absent; every requested order gets a verdict."""
    platform = Script()
    judgement = await caller(platform).call(REQUESTED)

    assert platform.calls == [([{"id": 1, "status": 4}, {"id": 2, "shipping_carrier": "Royal Mail"}], "t1")]
    assert {order_id: verdict.item for order_id, verdict in judgement.items.items()} == dict.fromkeys(
        REQUESTED, Item.APPLIED
    )


async def test_no_orders_are_the_control_call() -> None:
    """An empty list, answered with an empty list."""
    platform = Script()
    judgement = await caller(platform).call({})

    assert platform.calls == [([], "t1")]
    assert judgement.call is Call.ANSWERED


@pytest.mark.parametrize("refusal", [REFUSED, reply(None, [{"message": "Unauthenticated"}])])
async def test_a_refused_token_is_replaced_once_and_the_call_repeated(refusal: Reply) -> None:
    """Nothing was done, so the same call may go again with a new token."""
    platform, tokens = Script(refusal), FakeTokens()
    judgement = await caller(platform, tokens).call(REQUESTED)

    assert [token for _, token in platform.calls] == ["t1", "t2"]
    assert tokens.invalidated == ["t1"]
    assert judgement.call is Call.ANSWERED


async def test_two_refused_tokens_are_an_auth_verdict() -> None:
    """No loop: the second refusal counts."""
    platform = Script(REFUSED, REFUSED)
    judgement = await caller(platform).call(REQUESTED)

    assert len(platform.calls) == 2
    assert judgement.call is Call.AUTH


async def test_a_token_that_somebody_replaced_already_is_not_thrown_away() -> None:
    """Two calls were refused with the same old token: the new one of the first serves both."""
    tokens = FakeTokens()
    platform = Script(REFUSED)
    tokens_of_others = tokens.invalidate
    tokens_of_others("t1")
    await caller(platform, tokens).call(REQUESTED)
    tokens.invalidate("t1")

    assert [token for _, token in platform.calls] == ["t2", "t3"]
    assert await tokens.token() == "t3"


async def test_a_refused_credential_is_no_reason_for_a_second_try() -> None:
    """The token endpoint says no: the platform is not asked at all."""
    platform, tokens = Script(), FakeTokens()
    tokens.failure = TokenRefused("invalid_client")
    judgement = await caller(platform, tokens).call(REQUESTED)

    assert platform.calls == []
    assert tokens.asked == 1
    assert (judgement.call, judgement.detail) == (Call.AUTH, "invalid_client")


async def test_no_token_to_be_had_is_unavailable() -> None:
    """Never sent."""
    platform, tokens = Script(), FakeTokens()
    tokens.failure = TokenUnavailable("connection refused")
    judgement = await caller(platform, tokens).call(REQUESTED)

    assert platform.calls == []
    assert judgement.call is Call.UNAVAILABLE
    assert "no access token" in judgement.detail


async def test_no_new_token_after_a_refusal_is_unavailable() -> None:
    """The first call was refused, and then the token endpoint is away: what counts is that nothing was done."""
    tokens = FakeTokens()

    class Failing(Script):
        async def update_orders(self, orders: Sequence[Mapping[str, Scalar]], *, token: str) -> CallReport:
            tokens.failure = TokenUnavailable("away")
            return await super().update_orders(orders, token=token)

    judgement = await caller(Failing(REFUSED), tokens).call(REQUESTED)

    assert judgement.call is Call.UNAVAILABLE


@pytest.mark.parametrize(
    ("report", "verdict"),
    [
        (NotSent(cause="refused"), Call.UNAVAILABLE),
        (NoAnswer(cause="timeout"), Call.UNKNOWN),
        (Insecure(cause="certificate"), Call.CONFIGURATION),
        (CredentialsRefused(cause="scope"), Call.AUTH),
        (Reply(status=429, retry_after="7"), Call.THROTTLED),
        (rest_error("no"), Call.REFUSED),
    ],
)
async def test_everything_else_is_judged_and_never_repeated(report: CallReport, verdict: Call) -> None:
    """What may have been done is never done again here."""
    platform = Script(report)
    judgement = await caller(platform).call(REQUESTED)

    assert len(platform.calls) == 1
    assert judgement.call is verdict
