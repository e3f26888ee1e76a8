"""The control interface ``/_sim/``: look at the stand-in and steer it, from programs in any language.

Bad input is answered with 400 and ``{"error": ..., "allowed": ...}``.
"""

import itertools
import json
from collections.abc import Iterable
from typing import Annotated, Any, Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from worker.simulator import behaviours
from worker.simulator.exchange import Platform
from worker.simulator.faults import Fault, read_faults
from worker.simulator.options import NotAllowed, Options, OrderId, changed
from worker.simulator.orders import Moment, Values
from worker.simulator.replies import json_reply, read_json

LINES_PER_WRITE = 500
STATUS = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class Controlled(Protocol):
    """What the control interface steers: the simulator."""

    platform: Platform

    @property
    def is_listening(self) -> bool:
        """Whether the platform's port takes connections."""
        ...

    async def add_fault(self, fault: Fault) -> None:
        """Plan a fault, or carry it out at once."""
        ...

    async def clear_faults(self) -> None:
        """Nothing goes wrong any more."""
        ...

    async def reset(self) -> None:
        """Forget everything but options and tokens."""
        ...


class SeedOrder(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An order put there from outside, as the sales channel or an operator would. Fields left out keep their value."""

    id: OrderId
    status: STATUS | msgspec.UnsetType = msgspec.UNSET
    shipping_carrier: str | msgspec.UnsetType | None = msgspec.UNSET
    shipping_method: str | msgspec.UnsetType | None = msgspec.UNSET
    shipping_tracking: str | msgspec.UnsetType | None = msgspec.UNSET


def application(simulator: Controlled) -> web.Application:
    """The control interface as an aiohttp application."""
    app = web.Application(middlewares=[_explain], client_max_size=256 * 1024 * 1024)
    control = Control(simulator)
    for path, handler in (
        ("/_sim/", control.page),
        ("/_sim", control.page),
        ("/_sim/state", control.state),
        ("/_sim/orders", control.orders),
        ("/_sim/history", control.history),
        ("/_sim/calls", control.calls),
        ("/_sim/options", control.options),
        ("/_sim/faults", control.faults),
    ):
        app.router.add_get(path, handler)
    app.router.add_put("/_sim/options", control.change_options)
    app.router.add_patch("/_sim/options", control.change_options)
    app.router.add_post("/_sim/faults", control.add_faults)
    app.router.add_delete("/_sim/faults", control.clear_faults)
    app.router.add_post("/_sim/orders", control.seed_orders)
    app.router.add_delete("/_sim/tokens", control.revoke_tokens)
    app.router.add_post("/_sim/reset", control.reset)
    return app


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotAllowed as error:
        return json_reply({"error": str(error), "allowed": error.allowed}, 400)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        problem = f"{request.method} {request.path} does not exist"
        return json_reply({"error": problem, "allowed": dict(behaviours.ENDPOINTS)}, error.status)


class Control:
    """The handlers."""

    def __init__(self, simulator: Controlled) -> None:
        self._simulator = simulator
        self._platform = simulator.platform

    async def page(self, request: web.Request) -> web.StreamResponse:
        """What is DOCUMENTED, what is ASSUMED, and what can be steered."""
        if "json" in request.headers.get("Accept", ""):
            return json_reply(behaviours.as_json())
        return web.Response(text=behaviours.as_html(), content_type="text/html")

    async def state(self, _request: web.Request) -> web.StreamResponse:
        """Counters, options, faults."""
        platform = self._platform
        return json_reply(
            {
                "listening": self._simulator.is_listening,
                "calls": platform.calls.as_json(),
                "tokens": {"issued": platform.tokens.issued, "refused": platform.tokens.refused},
                "orders": len(platform.orders),
                "changes": platform.orders.change_count,
                "options": shown(platform.options),
                "faults": platform.faults.as_json(),
            }
        )

    async def orders(self, request: web.Request) -> web.StreamResponse:
        """Orders, those named by ``id`` or all that were ever written or seeded."""
        orders, wanted = self._platform.orders, _wanted(request)
        ids = list(orders.ids()) if wanted is None else sorted(item for item in wanted if item in orders)
        return await _lines(request, (orders.snapshot(order_id) for order_id in ids))

    async def history(self, request: web.Request) -> web.StreamResponse:
        """Changes in the order in which they were made."""
        changes = list(self._platform.orders.changes(_wanted(request)))
        return await _lines(request, (change.as_json() for change in changes))

    async def calls(self, request: web.Request) -> web.StreamResponse:
        """The last calls."""
        return await _lines(request, (call.as_json() for call in list(self._platform.calls.recent)))

    async def options(self, _request: web.Request) -> web.StreamResponse:
        """The options in force."""
        return json_reply(shown(self._platform.options))

    async def change_options(self, request: web.Request) -> web.StreamResponse:
        """PATCH changes the options named, PUT also sets all others to their defaults."""
        base = Options() if request.method == "PUT" else self._platform.options
        self._platform.options = changed(base, await _body(request))
        return json_reply(shown(self._platform.options))

    async def faults(self, _request: web.Request) -> web.StreamResponse:
        """What is planned to go wrong."""
        return json_reply(self._platform.faults.as_json())

    async def add_faults(self, request: web.Request) -> web.StreamResponse:
        """Plan faults: all of them, or none if one is not allowed."""
        for fault in read_faults(await _body(request)):
            await self._simulator.add_fault(fault)
        return json_reply(self._platform.faults.as_json())

    async def clear_faults(self, _request: web.Request) -> web.StreamResponse:
        """Nothing goes wrong any more."""
        await self._simulator.clear_faults()
        return json_reply(self._platform.faults.as_json())

    async def seed_orders(self, request: web.Request) -> web.StreamResponse:
        """Make or change orders; noted in the history as made by ``control``."""
        seeds = _read_seeds(await _body(request))
        platform = self._platform
        moment = Moment(platform.clock(), platform.wall(), "control", 0)
        for seed in seeds:
            given = {name: value for name, value in msgspec.to_builtins(seed).items() if name != "id"}
            platform.orders.write(seed.id, platform.orders.get(seed.id)._replace(**given), sent=given, moment=moment)
        return json_reply({"seeded": len(seeds)})

    async def revoke_tokens(self, _request: web.Request) -> web.StreamResponse:
        """Make every token unknown at once: what a worker sees as a 401 in mid-life."""
        return json_reply({"revoked": self._platform.tokens.revoke_all()})

    async def reset(self, _request: web.Request) -> web.StreamResponse:
        """Start anew."""
        await self._simulator.reset()
        return json_reply({"reset": True})


def shown(options: Options) -> dict[str, Any]:
    """Options for people, without the secret."""
    return {**msgspec.to_builtins(options, str_keys=True), "client_secret": "***"}


def _read_seeds(payload: Any) -> list[SeedOrder]:
    try:
        return msgspec.convert(payload if isinstance(payload, list) else [payload], list[SeedOrder])
    except msgspec.ValidationError as error:
        allowed = {
            "id": "1..2^63-1 (required)",
            "status": "integer",
            **dict.fromkeys(Values._fields[1:], "text or null"),
        }
        raise NotAllowed(str(error), allowed) from None


async def _body(request: web.Request) -> Any:
    try:
        return read_json(await request.read())
    except ValueError as error:
        raise NotAllowed(f"the body is not JSON: {error}", ["a JSON object", "a list of JSON objects"]) from None


def _wanted(request: web.Request) -> frozenset[int] | None:
    texts = [item for text in request.query.getall("id", []) for item in text.split(",")]
    try:
        return frozenset(int(text) for text in texts) if texts else None
    except ValueError:
        raise NotAllowed("id must be an integer, or several with commas between", ["?id=1", "?id=1,2"]) from None


async def _lines(request: web.Request, items: Iterable[dict[str, Any]]) -> web.StreamResponse:
    """NDJSON, written in pieces so that a long list does not hold up the platform's own answers."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    rest = iter(items)
    while piece := list(itertools.islice(rest, LINES_PER_WRITE)):
        text = "".join(json.dumps(item, separators=(",", ":")) + "\n" for item in piece)
        await response.write(text.encode())
    await response.write_eof()
    return response
