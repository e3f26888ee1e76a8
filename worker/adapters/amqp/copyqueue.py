"""A queue of copies: everything that producers publish goes there as well, and nobody else notices.

It is bound to the producers' exchange, so the work queue is not touched. It must never hold a producer up: a full queue
drops its oldest copies (with ``reject-publish`` the broker would refuse the producer's message as a whole, to all
queues). It goes when nobody has read from it for a while, should nobody be left to delete it.
"""

import structlog
from aio_pika.abc import AbstractConnection

from worker.adapters.amqp.declaring import RPC_TIMEOUT_S, declare, throwaway
from worker.adapters.amqp.topology import Argument, BindingSpec, QueueSpec, Topology
from worker.core.errors import BrokerRefused, ConnectionLost

log = structlog.get_logger(__name__)

MOST_MESSAGES = 100_000
MOST_BYTES = 256 * 1024 * 1024
EXPIRES_S = 600
"""Longer than a reconnect takes, shorter than anybody would miss the memory."""

_ARGUMENTS: dict[str, Argument] = {
    "x-queue-type": "classic",  # whatever the default of the virtual host: copies need no replicas
    "x-max-length": MOST_MESSAGES,
    "x-max-length-bytes": MOST_BYTES,
    "x-overflow": "drop-head",
    "x-expires": EXPIRES_S * 1000,
}


async def open_copies(connection: AbstractConnection, *, exchange: str, queue: str) -> None:
    """Make the queue and have it fed from now on. Repeating it changes nothing.

    Raises BrokerRefused where the exchange is missing or we may not, and ConnectionLost.
    """
    made = QueueSpec(name=queue, arguments=dict(_ARGUMENTS))
    feed = BindingSpec(source=exchange, target=queue, routing_key="#")
    wanted = Topology(
        exchanges=(), queues=(made,), bindings=(feed,), work_queue=queue, dead_queue="", retry_exchanges=()
    )
    await declare(connection, wanted)


async def close_copies(connection: AbstractConnection, queue: str) -> None:
    """Delete the queue with what is left in it. Where that fails it expires by itself."""
    try:
        async with throwaway(connection, RPC_TIMEOUT_S, f"queue {queue!r}") as channel:
            await channel.queue_delete(queue)
    except (BrokerRefused, ConnectionLost) as error:
        log.info("dryrun.queue_left", queue=queue, detail=str(error), expires_s=EXPIRES_S)
