"""One call to the platform, judged: token, request, verdict, and one fresh token where the old one was refused."""

from collections.abc import Mapping, Sequence

from worker.core.errors import TokenRefused, TokenUnavailable
from worker.core.model import Fields, Scalar
from worker.core.report import CallReport, CredentialsRefused, NotSent, Reply
from worker.core.verdict import Call, Judgement, Rules, judge
from worker.ports import Platform, TokenSource


class Caller:
    """Sends what it is given and says how that ended; it never decides what follows, and never repeats what may have
    been done."""

    def __init__(self, platform: Platform, tokens: TokenSource, rules: Rules) -> None:
        self._platform = platform
        self._tokens = tokens
        self._rules = rules

    @property
    def terminal_statuses(self) -> frozenset[int]:
        """The statuses after which an order is over."""
        return self._rules.terminal_statuses

    async def call(self, requested: Mapping[int, Fields]) -> Judgement:
        """One mutation for these orders, or the control call for none. Raises nothing that platform or network
        cause."""
        orders = [{"id": order_id, **fields} for order_id, fields in requested.items()]
        report, token = await self._send(orders)
        judgement = judge(report, requested, self._rules)
        if judgement.call is Call.AUTH and isinstance(report, Reply):
            # A refused token means that nothing was done, so the same call may be repeated, once, with a newer one. The
            # token is only thrown away if it is still the one in use: another call may have replaced it already.
            self._tokens.invalidate(token)
            report, _ = await self._send(orders)
            judgement = judge(report, requested, self._rules)
        return judgement

    async def _send(self, orders: Sequence[Mapping[str, Scalar]]) -> tuple[CallReport, str]:
        try:
            token = await self._tokens.token()
        except TokenRefused as refused:
            return CredentialsRefused(cause=str(refused)), ""
        except TokenUnavailable as unavailable:
            return NotSent(cause=f"no access token: {unavailable}"), ""
        return await self._platform.update_orders(orders, token=token), token
