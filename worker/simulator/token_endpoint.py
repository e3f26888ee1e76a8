"""``POST /token`` with whatever is planned to go wrong. What a right answer is, is decided in ``oauth.py``."""

from aiohttp import web

from worker.simulator import oauth
from worker.simulator.connections import Connection
from worker.simulator.exchange import Platform
from worker.simulator.spoiling import cut, instead, spoiled


class TokenEndpoint:
    """Answers requests for a token."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, or leave it without an answer."""
        platform, connection = self._platform, Connection(request)
        await request.read()
        fault = platform.faults.pick("token")
        unserved = instead(connection, fault)
        if unserved is not None:
            return unserved
        if fault is not None and fault.kind == "delay":
            await platform.pause(fault.seconds)
        if fault is not None and fault.kind == "hang":
            await platform.until_gone(connection)
            return cut(connection)
        reply = await oauth.answer(request, platform.options, platform.tokens)
        return await spoiled(request, connection, reply, fault)
