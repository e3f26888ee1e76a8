"""The model platform. It outlives workers, and tells the oracle what it does."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.simulation.journal import CALL_TIMEOUT_S
from tests.simulation.oracle import Oracle
from tests.simulation.processes import nobodys
from tests.simulation.scenario import BAD_FROM, DOOMED_FROM, Scenario, Trouble
from tests.simulation.steps import Snares, Step
from tests.simulation.trace import Trace
from tests.simulation.weather import Weather, now
from tests.support.modelplatform import Refusal, reply, rest_error
from worker.core.errors import TokenRefused, TokenUnavailable
from worker.core.journal import LATE_S
from worker.core.model import Fields, Scalar
from worker.core.report import CallReport, Insecure, NoAnswer, NotSent, Reply

BUSY_TEXT = "Temporarily not possible, please try again"
ODD = Reply(status=503, payload=None, readable=False, excerpt="busy")


@dataclass(slots=True, eq=False, kw_only=True)
class SimCall:
    """One call. ``report``: the platform has executed it, and this is its answer."""

    number: int
    worker: str
    began: float
    orders: Mapping[int, Fields]
    report: CallReport | None = None


class SimPlatform:
    """Executes calls in the middle of their latency, when their caller is killed, late, or never. ``late`` counts those
    that are still to come."""

    def __init__(self, scenario: Scenario, oracle: Oracle, trace: Trace, weather: Weather, snares: Snares) -> None:
        self._scenario = scenario
        self._oracle = oracle
        self._trace = trace
        self._weather = weather
        self._snares = snares
        self._dice = weather.dice
        self._running: dict[SimCall, None] = {}
        self._count = 0
        self.late = 0
        self.good_token = 1

    async def call(self, worker: str, orders: Mapping[int, Fields], token: str) -> CallReport:
        """One mutation of a worker."""
        self._count += 1
        call = SimCall(number=self._count, worker=worker, began=now(), orders=orders)
        self._trace.note("call", call.number, dict(orders))
        for other in self._running:
            if worker == other.worker and (twice := other.orders.keys() & orders.keys()):
                self._trace.violation(f"orders {sorted(twice)} are in the calls {other.number} and {call.number}")
        self._oracle.sent(worker, orders)
        self._running[call] = None
        try:
            report = await self._answer(call, token)
        except asyncio.CancelledError:
            if call.report is None:
                self._perhaps(call, gave_up_at=min(now(), call.began + CALL_TIMEOUT_S))
            raise
        finally:
            del self._running[call]
        self._trace.note("answer", call.number, _short(report))
        return report

    async def _answer(self, call: SimCall, token: str) -> CallReport:
        latency_s = self._dice.choice([0.5, 2.0, 13.0]) if self._weather.has(Trouble.SLOW) else self._scenario.latency_s
        await asyncio.sleep(latency_s / 2)
        await self._snares.reach(Step.SENDING, call.worker)
        if call.report is None and (in_vain := await self._in_vain(call, token)) is not None:
            return in_vain
        report = call.report or self._execute(call)  # the former where its worker was frozen meanwhile
        await self._snares.reach(Step.EXECUTED, call.worker)
        await asyncio.sleep(latency_s / 2)
        self._book(call, report)
        return report

    async def _in_vain(self, call: SimCall, token: str) -> CallReport | None:
        """The answer where the call is not executed, or nobody hears of it."""
        if token != f"t{self.good_token}":
            return rest_error("invalid token", status=401)
        if (bad := self._bad_weather()) is not None:
            if isinstance(bad, Reply) and bad.status == 403 and len(call.orders) == 1:
                self._oracle.refused_alone(call.began, now(), next(iter(call.orders.values())))
            return bad
        weather = self._weather
        deaf = weather.has(Trouble.DEAF, worker=call.worker)
        if (
            deaf
            or weather.has(Trouble.SILENT)
            or weather.has(Trouble.RESET, 0.6)
            or weather.has(Trouble.ERROR_500, 0.6)
        ):
            return await self._no_answer(call)
        return None

    def froze(self, worker: str) -> None:
        """A worker is frozen. Of its calls that are not executed yet, some are on the wire already; the others leave it
        when it thaws."""
        for call in [call for call in self._running if call.worker == worker and call.report is None]:
            if self._dice.random() < 0.5:
                asyncio.get_running_loop().call_later(
                    self._scenario.latency_s, self._execute_alone, call, context=nobodys()
                )

    def _bad_weather(self) -> CallReport | None:
        """Answers that mean that nothing was done."""
        answers: dict[Trouble, CallReport] = {
            Trouble.DOWN: NotSent(cause="connection refused"),
            Trouble.TLS: Insecure(cause="bad certificate"),
            Trouble.BUSY_503: ODD,
            Trouble.THROTTLED: Reply(status=429),
            Trouble.RETRY_AFTER: Reply(status=429, retry_after="7"),
            Trouble.GONE_404: rest_error("gone", 404),
            Trouble.FORBIDDEN_403: rest_error("you may not", 403),
        }
        return next((answer for trouble, answer in answers.items() if self._weather.has(trouble)), None)

    async def _no_answer(self, call: SimCall) -> CallReport:
        """Executed or not, nobody hears of it."""
        silent = self._weather.has(Trouble.SILENT) or self._weather.has(Trouble.DEAF, worker=call.worker)
        self._perhaps(call, gave_up_at=call.began + CALL_TIMEOUT_S if silent else now())
        self._oracle.in_vain(call.orders, alone=len(call.orders) == 1)
        if silent:
            await asyncio.sleep(CALL_TIMEOUT_S)
            return NoAnswer(cause="timeout")
        return Reply(status=500) if self._weather.has(Trouble.ERROR_500) else NoAnswer(cause="reset by peer")

    def _perhaps(self, call: SimCall, *, gave_up_at: float) -> None:
        """Execute it now, or late, or not at all."""
        chance = self._dice.random()
        if gave_up_at + LATE_S - 0.1 < now():
            return  # its worker was frozen, and died when it woke up
        if chance < 0.4:
            self._execute(call)
        elif chance < (0.6 if self._scenario.workers == 1 else 0.9):
            self.late += 1
            latest = gave_up_at + LATE_S - 0.1
            at = self._dice.uniform(now(), latest)
            if self._scenario.workers == 2 and self._dice.random() < 0.5:
                at = max(now(), latest - self._dice.uniform(0.0, 5.0))  # when the claims are about to expire
            asyncio.get_running_loop().call_at(at, self._execute_late, call, context=nobodys())

    def _execute_late(self, call: SimCall) -> None:
        self.late -= 1
        self._trace.note("late", call.number)
        self._execute(call)

    def _execute_alone(self, call: SimCall) -> None:
        if call.report is None and not self._weather.has(Trouble.DOWN):
            self._execute(call)

    # -- what it does ---------------------------------------------------------------------------------------------

    def _execute(self, call: SimCall) -> CallReport:
        call.report = self._do(call)
        return call.report

    def _do(self, call: SimCall) -> CallReport:
        orders = call.orders
        if not orders:
            return reply([]) if self._scenario.takes_empty else rest_error("Nothing to update")
        bad = [order_id for order_id, fields in orders.items() if _status(fields, BAD_FROM)]
        how = self._scenario.how
        if bad and self._scenario.blames_wrongly and len(orders) > 1:
            return self._blame_anybody(call)
        if bad and how is not Refusal.PATH:
            text = "Invalid order status"
            return rest_error(text) if how is Refusal.HTTP_400 else reply(None, [{"message": text}])
        return self._do_each(call, bad)

    def _blame_anybody(self, call: SimCall) -> CallReport:
        place = self._dice.randrange(len(call.orders))
        error = {"message": "Invalid order status", "path": ["core", "updateOrders", place]}
        return reply([None] * len(call.orders), [error])

    def _do_each(self, call: SimCall, bad: Sequence[int]) -> CallReport:
        items: list[object] = []
        faults: dict[int, str] = dict.fromkeys(bad, "Invalid order status")
        for order_id, fields in call.orders.items():
            if order_id in faults:
                items.append(("fault", order_id))
            elif _status(fields, DOOMED_FROM):
                faults[order_id] = BUSY_TEXT
                items.append(("fault", order_id))
            elif self._weather.has(Trouble.MASKED, 0.3):
                faults[order_id] = "Internal server error"
                items.append(("fault", order_id))
            elif not self._weather.has(Trouble.OMITS, 0.3):
                self._apply(call, order_id, fields)
                items.append({"id": str(order_id) if self._dice.random() < 0.3 else order_id, **fields})
            elif self._dice.random() < 0.3:
                self._apply(call, order_id, fields)
        self._dice.shuffle(items)
        errors = [
            {"message": faults[item[1]], "path": ["core", "updateOrders", place]}
            for place, item in enumerate(items)
            if isinstance(item, tuple)
        ]
        return reply([None if isinstance(item, tuple) else item for item in items], errors)

    def _apply(self, call: SimCall, order_id: int, fields: Fields) -> None:
        self._trace.note("applied", call.number, f"order {order_id}", dict(fields))
        self._oracle.applied(order_id, fields)

    # -- the books ------------------------------------------------------------------------------------------------

    def _book(self, call: SimCall, report: CallReport) -> None:
        assert isinstance(report, Reply)
        data = report.payload.get("data") or {}
        items = data.get("core", {}).get("updateOrders")
        shown = {int(item["id"]) for item in items or () if item}
        if items is not None:
            self._oracle.accepted(call.began, now(), shown if call.orders else (0,))
        missing = {order_id: fields for order_id, fields in call.orders.items() if order_id not in shown}
        self._oracle.in_vain(missing, alone=len(call.orders) == 1)
        if len(call.orders) == 1 and missing:
            self._oracle.refused_alone(call.began, now(), next(iter(missing.values())))


class SimClient:
    """Implements ``ports.Platform`` and ``ports.TokenSource`` for one worker."""

    def __init__(self, platform: SimPlatform, weather: Weather, worker: str) -> None:
        self._platform = platform
        self._weather = weather
        self._worker = worker
        self._token = platform.good_token

    async def update_orders(self, orders: Sequence[Mapping[str, Scalar]], *, token: str) -> CallReport:
        """See ``ports.Platform``."""
        by_id = {int(str(order["id"])): {k: v for k, v in order.items() if k != "id"} for order in orders}
        return await self._platform.call(self._worker, by_id, token)

    async def token(self) -> str:
        """See ``ports.TokenSource``."""
        await asyncio.sleep(0)
        if self._weather.has(Trouble.TOKEN_REFUSED):
            raise TokenRefused("no")
        if self._weather.has(Trouble.TOKEN_AWAY):
            raise TokenUnavailable("away")
        return f"t{self._token}"

    def invalidate(self, token: str) -> None:
        """See ``ports.TokenSource``."""
        if token == f"t{self._token}":
            self._token = self._platform.good_token


def _status(fields: Fields, first: int) -> bool:
    status = fields.get("status")
    return isinstance(status, int) and first <= status < first + 1000


def _short(report: CallReport) -> str:
    return f"{report.status} {report.payload}" if isinstance(report, Reply) else repr(report)
