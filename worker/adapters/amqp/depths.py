"""How many messages are ready in a few queues: passive declarations, on a connection of their own.

A request that is given up leaves its channel half open. On the consuming connection that would be a risk for the work;
here it costs the connection, and the next look dials anew.
"""

from collections.abc import Callable, Sequence

from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.declaring import is_hidden, look
from worker.core.errors import BrokerRefused, ConnectionLost, UsageError


class QueueLook:
    """Looks over ``link`` while ``wanted``: where the worker itself is not connected nobody dials for a figure."""

    def __init__(self, link: Link, *, wanted: Callable[[], bool]) -> None:
        self._link = link
        self._wanted = wanted

    async def ready(self, queues: Sequence[str]) -> dict[str, int]:
        """The ready messages of these queues. Those that are missing, or that we may not see, are absent; so are all
        where the broker does not answer. Bounded by the deadline of requests; cancelling it costs the connection."""
        if not self._wanted():
            return {}
        seen: dict[str, int] = {}
        try:
            for queue in queues:
                if (count := await self._count(queue)) is not None:
                    seen[queue] = count
        except (ConnectionLost, BrokerRefused, UsageError):
            await self._link.drop()
            return {}
        except BaseException:
            await self._link.drop()
            raise
        return seen

    async def _count(self, queue: str) -> int | None:
        try:
            told = await look(await self._link.get(), queue, self._link.endpoint.rpc_timeout_s)
        except BrokerRefused as refused:
            if is_hidden(refused):
                return None
            raise
        return None if told is None else told.message_count
