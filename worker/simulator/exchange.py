"""What all calls share (``Platform``), and one admitted call while it is carried out (``Exchange``)."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphql import GraphQLError

from worker.simulator.calls import Call, Calls
from worker.simulator.connections import Connection
from worker.simulator.faults import Fault, FaultPlan
from worker.simulator.oauth import Grant, Tokens
from worker.simulator.options import EDIT_SCOPE, MASKED, VIEW_SCOPE, Options, latency_bounds
from worker.simulator.orders import FILTER_FIELDS, Moment, Orders, matches, view
from worker.simulator.rates import Rates
from worker.simulator.replies import RestError
from worker.simulator.updates import Updates

LOOK_EVERY_S = 0.02  # how often a hanging call looks whether its client is still there
MAX_COUNT = 250  # largest page size seen in a documented query


class Platform:
    """State of the stand-in. ``clock`` is monotonic, ``wall`` counts seconds since 1970; tests may replace both."""

    def __init__(self, options: Options, *, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self.clock, self.wall = clock, wall
        self.orders = Orders()
        self.calls = Calls(clock, wall)
        self.tokens = Tokens(clock)
        self.rates = Rates(clock)
        self.faults = FaultPlan(clock, options.seed)
        self.chance = random.Random(options.seed)  # noqa: S311  repeatable latency and shuffling, nothing secret
        self.updates = Updates(orders=self.orders, options=options, chance=self.chance)
        self.stopping = asyncio.Event()
        self._remember(options)

    @property
    def options(self) -> Options:
        """The options in force."""
        return self.updates.options

    @options.setter
    def options(self, options: Options) -> None:
        if options.seed != self.options.seed:
            self.chance.seed(options.seed)
            self.faults.reseed(options.seed)
        if options.busy_orders != self.options.busy_orders:
            self.updates.busy_given.clear()
        self.updates.options = options
        self._remember(options)

    def _remember(self, options: Options) -> None:
        self.orders.keep_history = self.calls.keep_orders = options.keep_history

    def reset(self) -> None:
        """Forget orders, history, calls, counters, rates and faults, start the seed again; options and tokens stay."""
        for part in (self.orders, self.calls, self.rates, self.faults, self.updates.busy_given):
            part.clear()
        self.chance.seed(self.options.seed)
        self.faults.reseed(self.options.seed)

    async def pause(self, seconds: float) -> None:
        """Wait; the end of the stand-in ends every wait, so that it can leave in time."""
        if seconds <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    async def until_gone(self, connection: Connection) -> None:
        """Wait until the client went away (aiohttp does not tell a running handler), or the stand-in ends."""
        while connection.is_open and not self.stopping.is_set():
            await self.pause(LOOK_EVERY_S)

    def latency(self) -> tuple[float, float]:
        """Seconds to wait before and after applying: the whole drawn from the range, then cut at a random point."""
        whole = self.chance.uniform(*latency_bounds(self.options))
        before = self.chance.uniform(0, whole)
        return before, whole - before


class Exchange:
    """One call that was let in: the resolvers of the schema, and the waits and faults around them.

    ``failure`` is an HTTP error that replaces the whole answer; ``loose_errors`` are GraphQL errors without a path.
    """

    def __init__(self, platform: Platform, call: Call, grant: Grant, fault: Fault | None) -> None:
        self._platform, self._call, self._grant, self._fault = platform, call, grant, fault
        self._before_s, self._after_s = platform.latency()
        self._has_waited = False
        self.failure: RestError | None = None
        self.loose_errors: list[str] = []

    async def update_orders(self, orders: Sequence[Mapping[str, Any] | None]) -> Any:
        """Carry out ``core.updateOrders``."""
        self._platform.calls.enter(
            self._call, "updateOrders", [order["id"] for order in orders if order and order.get("id")]
        )
        self._check_scope(EDIT_SCOPE)
        await self._before_applying()
        return self._apply(orders)

    async def find_orders(self, wanted: Mapping[str, Any], *, page: int, count: int) -> Any:
        """Answer ``core.orders``: orders by id, page by page."""
        self._platform.calls.enter(self._call, "orders")
        self._check_scope(VIEW_SCOPE)
        _check_search(wanted, page, count)
        await self._before_applying()
        found = self._matching(wanted)
        start = (page - 1) * count
        numeric_strings = self._platform.options.numeric_strings
        items = [
            view(order_id, self._platform.orders.get(order_id), numeric_strings=numeric_strings)
            for order_id in found[start : start + count]
        ]
        return {"pages": {"pageCount": max(1, -(-len(found) // count)), "current": page}, "items": items}

    async def after_applying(self) -> None:
        """The rest of the latency, and faults that only make the answer late."""
        await self._platform.pause(self._after_s)
        fault = self._fault
        if fault is None:
            return
        if fault.kind == "delay" and fault.where == "after":
            await self._platform.pause(fault.seconds)
        elif fault.kind == "hang":
            await self._platform.until_gone(self._call.connection)

    async def _before_applying(self) -> None:
        """Once per call, however many fields it asks for."""
        if self._has_waited:
            return
        self._has_waited = True
        await self._platform.pause(self._before_s)
        fault = self._fault
        if fault is None:
            return
        match fault.kind:
            case "delay" if fault.where == "before":
                await self._platform.pause(fault.seconds)
            case "late":
                self._call.connection.cut()
                self._platform.calls.finish(self._call, None)
                await self._platform.pause(fault.seconds)
            case "hang" if not fault.is_applied:
                await self._platform.until_gone(self._call.connection)
            case _:
                pass

    def _apply(self, orders: Sequence[Mapping[str, Any] | None]) -> Any:
        fault = self._fault
        if fault is not None and (fault.kind == "masked" or (fault.kind == "hang" and not fault.is_applied)):
            raise GraphQLError(MASKED)
        busy_from = len(orders) // 2 if fault is not None and fault.kind == "partial" else None
        now = self._platform.clock()
        moment = Moment(now, self._platform.wall(), self._grant.client, self._call.number)
        try:
            reply = self._platform.updates.run(orders, moment, busy_from=busy_from)
        except RestError as error:
            self.failure = error
            raise GraphQLError(error.message) from error
        self._call.applied_s = now
        self.loose_errors += reply.loose_errors
        return reply.entries

    def _check_scope(self, scope: str) -> None:
        if scope in self._grant.scopes:
            return
        message = f"Permission denied ({scope})"
        if self._platform.options.permission_refusal == "http_403":
            self.failure = RestError(403, message)
        raise GraphQLError(message)

    def _matching(self, wanted: Mapping[str, Any]) -> list[int]:
        platform = self._platform
        if "id" in wanted:
            named = wanted["id"] if isinstance(wanted["id"], list) else [wanted["id"]]
            candidates = sorted({item for item in named if type(item) is int and platform.updates.is_known(item)})
        else:
            candidates = sorted(item for item in platform.orders.ids() if platform.updates.is_known(item))
        return [item for item in candidates if matches(item, platform.orders.get(item), wanted)]


def _check_search(wanted: Any, page: int, count: int) -> None:
    if not isinstance(wanted, dict):
        raise GraphQLError("filter must be an object")
    unknown = sorted(set(wanted) - set(FILTER_FIELDS))
    if unknown:
        raise GraphQLError(f"Unknown filter {unknown[0]!r}; known are {', '.join(FILTER_FIELDS)}")
    if page < 1 or not 1 <= count <= MAX_COUNT:
        raise GraphQLError(f"page must be at least 1, count 1 to {MAX_COUNT}")
