"""What a fault makes of an answer. Both endpoints use it."""

from aiohttp import web

from worker.simulator.connections import Connection
from worker.simulator.faults import Fault

NO_ANSWER = 444  # never seen by a client: the connection is gone, and aiohttp wants some response


def cut(connection: Connection) -> web.Response:
    """Reset the connection; the response is for aiohttp only."""
    connection.cut()
    return web.Response(status=NO_ANSWER)


def instead(connection: Connection, fault: Fault | None) -> web.Response | None:
    """The answer to a call that is not carried out at all; None if it is."""
    if fault is None or fault.is_applied:
        return None
    return cut(connection) if fault.kind == "reset_before" else fault.replacement()


async def spoiled(
    request: web.Request, connection: Connection, reply: web.Response, fault: Fault | None
) -> web.StreamResponse:
    """The true reply to a call that was carried out, or what the fault makes of it."""
    if fault is None:
        return reply
    match fault.kind:
        case "reset_before" | "reset_after" | "late" | "hang":
            return cut(connection)
        case "truncated":
            return web.Response(body=_half(reply), status=reply.status, content_type="application/json")
        case "cut_short":
            return await _cut_short(request, reply)
        case _:
            return fault.replacement() or reply


async def _cut_short(request: web.Request, reply: web.Response) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers={"Content-Type": "application/json"})
    response.content_length = 2 * len(_half(reply)) + 1
    await response.prepare(request)
    await response.write(_half(reply))
    if request.transport is not None:
        request.transport.close()
    return response


def _half(reply: web.Response) -> bytes:
    body = reply.body if isinstance(reply.body, bytes) else b""
    return body[: len(body) // 2]
