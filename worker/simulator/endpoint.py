"""The GraphQL endpoint: one HTTP call from its arrival to its answer, with whatever is planned to go wrong.

    arrive -> fault instead? -> token -> rate limit -> JSON -> parse, validate, execute -> fault afterwards? -> answer

The mutation that workers send is executed by ``direct.py``, everything else by graphql-core.

The latency is split at random: one part before the update is applied (inside the resolver, so the orders of the call
are known to be in flight), the rest after it. aiohttp lets a handler run on when its client has gone
(``handler_cancellation`` is off by default): a call that its client gave up may still be applied, as elsewhere.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeGuard

from aiohttp import web
from graphql import ExecutionResult, GraphQLError, execute

from worker.simulator.calls import Call
from worker.simulator.connections import Connection
from worker.simulator.direct import read_direct
from worker.simulator.documents import read_document
from worker.simulator.exchange import Exchange, Platform
from worker.simulator.faults import Fault
from worker.simulator.oauth import Grant
from worker.simulator.replies import INVALID_JSON, RATE_LIMITED, UNAUTHORISED, RestError, json_reply, read_json
from worker.simulator.schema import SCHEMA, resolve_key
from worker.simulator.spoiling import NO_ANSWER, instead, spoiled


def is_awaitable(value: Any) -> TypeGuard[Awaitable[Any]]:
    """graphql-core's own test costs a third of the execution; this one only lacks generator-based coroutines."""
    return hasattr(type(value), "__await__")


class Endpoint:
    """Answers ``POST /`` and ``POST /graphql``."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one call, or leave it without an answer."""
        platform = self._platform
        body = await request.read()
        call = platform.calls.start(Connection(request))
        fault = platform.faults.pick("graphql")
        call.fault = fault.kind if fault else None
        try:
            response = await self._respond(request, body, call, fault)
            platform.calls.finish(call, _seen_status(response, call))
        finally:
            platform.calls.finish(call, None)
        return response

    async def _respond(self, request: web.Request, body: bytes, call: Call, fault: Fault | None) -> web.StreamResponse:
        unserved = instead(call.connection, fault)
        if unserved is not None:
            return unserved
        try:
            grant = self._admit(request, call)
            exchange = Exchange(self._platform, call, grant, fault)
            true_reply = await self._carry_out(exchange, body)
            await exchange.after_applying()
        except RestError as error:
            return error.response()
        return await spoiled(request, call.connection, true_reply, fault)

    def _admit(self, request: web.Request, call: Call) -> Grant:
        grant = self._platform.tokens.grant(request.headers.get("Authorization"))
        if grant is None:
            raise RestError(401, "Authentication required", UNAUTHORISED)
        call.client = grant.client
        options = self._platform.options
        if not self._platform.rates.admit(grant.client, hourly=options.rate_per_hour, daily=options.rate_per_day):
            # Documented for the Create Orders API: HTTP 400, not 429. The code number is ours.
            raise RestError(400, "Rate limit exceeded", RATE_LIMITED)
        return grant

    async def _carry_out(self, exchange: Exchange, body: bytes) -> web.Response:
        direct = read_direct(body)
        if direct is None:
            return await self._execute(exchange, _read_json(body))
        reply = await direct.answer(exchange, exchange.loose_errors)
        if exchange.failure is not None:
            raise exchange.failure
        return reply

    async def _execute(self, exchange: Exchange, payload: Mapping[str, Any]) -> web.Response:
        document = read_document(payload["query"])
        if isinstance(document, tuple):
            return self._request_errors(list(document))
        result = execute(
            SCHEMA,
            document,
            context_value=exchange,
            variable_values=payload.get("variables") or {},
            operation_name=payload.get("operationName"),
            field_resolver=resolve_key,
            is_awaitable=is_awaitable,
        )
        outcome = result if isinstance(result, ExecutionResult) else await result
        return self._reply(exchange, outcome)

    def _reply(self, exchange: Exchange, outcome: ExecutionResult) -> web.Response:
        if exchange.failure is not None:
            raise exchange.failure
        for error in outcome.errors or ():
            if error.original_error is not None and not isinstance(error.original_error, GraphQLError):
                raise error.original_error  # a mistake of ours: aiohttp answers 500 and logs it
        errors = [_formatted(error) for error in outcome.errors or ()]
        errors += [{"message": text} for text in exchange.loose_errors]
        if outcome.data is None:
            return self._request_errors(outcome.errors or [])
        return json_reply({"errors": errors, "data": outcome.data} if errors else {"data": outcome.data})

    def _request_errors(self, errors: list[GraphQLError]) -> web.Response:
        """Errors of the document or its variables: nothing was executed, so there is no ``data`` at all."""
        payload = {"errors": [_formatted(error) for error in errors]}
        return json_reply(payload, self._platform.options.request_error_status)


def _formatted(error: GraphQLError) -> Mapping[str, Any]:
    return error.formatted


def _read_json(body: bytes) -> Mapping[str, Any]:
    try:
        payload = read_json(body)
    except ValueError:
        raise RestError(400, "Invalid JSON", INVALID_JSON) from None
    if not isinstance(payload, dict) or not isinstance(payload.get("query"), str):
        raise RestError(400, "A JSON object with the string `query` is expected", INVALID_JSON)
    if not isinstance(payload.get("variables") or {}, dict) or not isinstance(payload.get("operationName") or "", str):
        raise RestError(400, "`variables` must be an object, `operationName` a string", INVALID_JSON)
    return payload


def _seen_status(response: web.StreamResponse, call: Call) -> int | None:
    gone = response.status == NO_ANSWER or call.connection.is_lost
    return None if gone else response.status
