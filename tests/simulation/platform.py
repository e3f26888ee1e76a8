"""The model platform and the durable journal: both outlive workers, and tell the oracle what they do."""

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tests.simulation.oracle import Oracle
from tests.simulation.scenario import BAD_FROM, DOOMED_FROM, Scenario, Trouble
from tests.simulation.trace import Trace
from tests.support.modelplatform import Refusal, reply, rest_error
from worker.adapters.journal.memory import MemoryJournal
from worker.core.errors import TokenRefused, TokenUnavailable
from worker.core.journal import BatchRecord, Claim, OrderRow
from worker.core.model import Fields, Scalar
from worker.core.report import CallReport, Insecure, NoAnswer, NotSent, Reply

CALL_TIMEOUT_S = 15.0
LATE_S = 30.0
"""The latest that a call may be executed after its caller gave it up (design, Promises)."""
BUSY_TEXT = "Temporarily not possible, please try again"
ODD = Reply(status=503, payload=None, readable=False, excerpt="busy")


class Weather:
    """Which troubles there are now, by the virtual time at which each ends."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self._until: dict[Trouble, float] = {}

    def begin(self, trouble: Trouble, lasts_s: float) -> None:
        """It is there from now on."""
        self._until[trouble] = _now() + lasts_s

    def clear(self) -> None:
        """All is well."""
        self._until.clear()

    def has(self, trouble: Trouble, chance: float = 1.0) -> bool:
        """Whether it strikes now."""
        return self._until.get(trouble, 0.0) > _now() and (chance == 1.0 or self.dice.random() < chance)


@dataclass(slots=True, eq=False, kw_only=True)
class SimCall:
    """One call. ``done`` says that the platform has executed it."""

    number: int
    worker: str
    began: float
    orders: Mapping[int, Fields]
    done: bool = False


class SimPlatform:
    """Executes calls in the middle of their latency, when their caller is killed, late, or never. ``late`` counts those
    that are still to come."""

    def __init__(self, scenario: Scenario, oracle: Oracle, trace: Trace, weather: Weather) -> None:
        self._scenario = scenario
        self._oracle = oracle
        self._trace = trace
        self._weather = weather
        self._dice = weather.dice
        self._running: dict[SimCall, None] = {}
        self._count = 0
        self.late = 0
        self.good_token = 1

    async def call(self, worker: str, orders: Mapping[int, Fields], token: str) -> CallReport:
        """One mutation of a worker."""
        self._count += 1
        call = SimCall(number=self._count, worker=worker, began=_now(), orders=orders)
        self._trace.note("call", call.number, dict(orders))
        for other in self._running:
            if twice := other.orders.keys() & orders.keys():
                self._trace.violation(f"orders {sorted(twice)} are in the calls {other.number} and {call.number}")
        self._oracle.sent(orders)
        self._running[call] = None
        try:
            report = await self._answer(call, token)
        except asyncio.CancelledError:
            if not call.done:
                self._perhaps(call, gave_up_at=_now())
            raise
        finally:
            del self._running[call]
        self._trace.note("answer", call.number, _short(report))
        return report

    async def _answer(self, call: SimCall, token: str) -> CallReport:
        latency_s = self._dice.choice([0.5, 2.0, 13.0]) if self._weather.has(Trouble.SLOW) else self._scenario.latency_s
        await asyncio.sleep(latency_s / 2)
        weather = self._weather
        if token != f"t{self.good_token}":
            return rest_error("invalid token", status=401)
        if (bad := self._bad_weather()) is not None:
            if isinstance(bad, Reply) and bad.status == 403 and len(call.orders) == 1:
                self._oracle.refused_alone(call.began, _now(), next(iter(call.orders.values())))
            return bad
        if weather.has(Trouble.SILENT) or weather.has(Trouble.RESET, 0.6) or weather.has(Trouble.ERROR_500, 0.6):
            return await self._no_answer(call)
        report = self._execute(call)
        await asyncio.sleep(latency_s / 2)
        self._book(call, report)
        return report

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
        silent = self._weather.has(Trouble.SILENT)
        self._perhaps(call, gave_up_at=call.began + CALL_TIMEOUT_S if silent else _now())
        self._oracle.in_vain(call.orders, alone=len(call.orders) == 1)
        if silent:
            await asyncio.sleep(CALL_TIMEOUT_S)
            return NoAnswer(cause="timeout")
        return Reply(status=500) if self._weather.has(Trouble.ERROR_500) else NoAnswer(cause="reset by peer")

    def _perhaps(self, call: SimCall, *, gave_up_at: float) -> None:
        """Execute it now, or late, or not at all."""
        chance = self._dice.random()
        if chance < 0.4:
            self._execute(call)
        elif chance < 0.6:
            self.late += 1
            at = self._dice.uniform(_now(), gave_up_at + LATE_S - 0.1)
            asyncio.get_running_loop().call_at(at, self._execute_late, call)

    def _execute_late(self, call: SimCall) -> None:
        self.late -= 1
        self._trace.note("late", call.number)
        self._execute(call)

    # -- what it does ---------------------------------------------------------------------------------------------

    def _execute(self, call: SimCall) -> CallReport:
        call.done = True
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
            self._oracle.accepted(call.began, _now(), shown if call.orders else (0,))
        missing = {order_id: fields for order_id, fields in call.orders.items() if order_id not in shown}
        self._oracle.in_vain(missing, alone=len(call.orders) == 1)
        if len(call.orders) == 1 and missing:
            self._oracle.refused_alone(call.began, _now(), next(iter(missing.values())))


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


class SimJournal(MemoryJournal):
    """The real rules of claims and records. It survives every worker: a durable one. The oracle sees every record."""

    def __init__(self, oracle: Oracle, trace: Trace, takes_s: float) -> None:
        super().__init__(claim_s=CALL_TIMEOUT_S + LATE_S)
        self._oracle = oracle
        self._journalled = oracle.journal
        self._trace = trace
        self._takes_s = takes_s

    async def claim(self, order_ids: Collection[int], *, wall_us: int) -> Mapping[int, OrderRow]:
        """See ``ports.Ledger``."""
        await asyncio.sleep(self._takes_s)
        rows = await super().claim(order_ids, wall_us=wall_us)
        for order_id, row in rows.items():
            times = (row.echo_us, row.standing and row.standing.expires_us)
            self._oracle.may_repeat(order_id, allowed=any(time is not None and time <= wall_us for time in times))
        return rows

    @property
    def quiet(self) -> bool:
        """No claim stands, and no echo is owed."""
        return not self._open

    async def record(self, record: BatchRecord) -> Mapping[int, Claim | None]:
        """See ``ports.Ledger``."""
        await asyncio.sleep(self._takes_s)
        moved = await super().record(record)
        applied = {order_id: outcome.applied for order_id, outcome in record.orders.items() if outcome.applied}
        for order_id, fields in applied.items():
            row = self._journalled.setdefault(order_id, {})
            for name, (version, value) in fields.items():
                if name not in row or row[name][0] < version:
                    row[name] = version, value
        if applied:
            values = {order_id: [value for _, value in fields.values()] for order_id, fields in applied.items()}
            self._trace.note("journal", values)
        return moved


def _status(fields: Fields, first: int) -> bool:
    status = fields.get("status")
    return isinstance(status, int) and first <= status < first + 1000


def _short(report: CallReport) -> str:
    return f"{report.status} {report.payload}" if isinstance(report, Reply) else repr(report)


def _now() -> float:
    return asyncio.get_running_loop().time()
