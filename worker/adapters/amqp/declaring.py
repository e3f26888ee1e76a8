"""Brings a topology to the broker, or checks that it is there (``TOPOLOGY`` declare | passive).

A passive declaration only asks whether a name exists: RabbitMQ ignores the arguments of it. So ``verify`` asks
passively first, and where the queue exists declares it in earnest, which changes nothing and is refused with the name
of the first argument that differs. A user without the configure permission may do the first, not the second: then the
arguments stay unchecked, and a log line says so. Some releases do not even tell such a user whether the name exists
(4.2.6 and 4.3.0; later ones tell whoever has any permission on it: rabbitmq-server#16272), so that is no reason not to
start: a missing queue shows when it is used. Bindings cannot be read over AMQP at all.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NoReturn

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionCommandInvalid,
)
from pamqp.commands import Queue

from worker.adapters.amqp.deadline import within
from worker.adapters.amqp.topology import BindingSpec, ExchangeSpec, QueueSpec, Topology
from worker.core.errors import BrokerRefused, ConnectionLost

log = structlog.get_logger(__name__)

RPC_TIMEOUT_S = 10.0

_DIFFERS = re.compile(r"inequivalent arg '([^']+)'.*received (.+) but current is (.+)$", re.DOTALL)
_HIDDEN = {
    True: "no permission: neither its existence nor its arguments could be looked at",
    False: "no configure permission: exists, arguments not compared",
}
"""What a user may not, by whether the declaration was passive; the passive one comes first."""


async def declare(connection: AbstractConnection, wanted: Topology, *, rpc_timeout_s: float = RPC_TIMEOUT_S) -> None:
    """Create what is missing; doing it again changes nothing.

    Raises BrokerRefused where something exists with other arguments, or where we may not; ConnectionLost.
    """
    for exchange in wanted.exchanges:
        async with throwaway(connection, rpc_timeout_s, f"exchange {exchange.name!r}") as channel:
            await _declare_exchange(channel, exchange)
    for queue in wanted.queues:
        async with throwaway(connection, rpc_timeout_s, f"queue {queue.name!r}") as channel:
            await _declare_queue(channel, queue)
    for binding in wanted.bindings:
        async with throwaway(connection, rpc_timeout_s, f"binding to {binding.target!r}") as channel:
            await _bind(channel, binding)


async def verify(
    connection: AbstractConnection, wanted: Topology, *, rpc_timeout_s: float = RPC_TIMEOUT_S
) -> list[str]:
    """Check that everything exists and has these arguments; creates nothing. Returns what could not be compared.

    Raises BrokerRefused that names what is missing or which argument differs, and what to do; ConnectionLost.
    """
    exchanges = [(f"exchange {each.name!r}", partial(_declare_exchange, exchange=each)) for each in wanted.exchanges]
    queues = [(f"queue {each.name!r}", partial(_declare_queue, queue=each)) for each in wanted.queues]
    return [
        name
        for name, declaration in (*exchanges, *queues)
        if not await _compared(connection, rpc_timeout_s, name, declaration)
    ]


def difference(refused: BrokerRefused) -> tuple[str, str] | None:
    """(argument, what the broker has) where that is why a declaration was refused; the value as the broker writes
    it."""
    differs = _DIFFERS.search(str(refused.__cause__))
    return None if differs is None else (differs[1], differs[3])


def is_missing(refused: Exception) -> bool:
    """Whether that is why it was refused."""
    return isinstance(refused.__cause__, ChannelNotFoundEntity)


def is_hidden(refused: Exception) -> bool:
    """Whether it was refused because we lack a right."""
    return isinstance(refused.__cause__, ChannelAccessRefused)


async def look(
    connection: AbstractConnection, queue: str, rpc_timeout_s: float = RPC_TIMEOUT_S
) -> Queue.DeclareOk | None:
    """What the broker tells of a queue: its ready messages and its consumers. None: it is missing.

    Raises BrokerRefused where we may not even look, and ConnectionLost.
    """
    try:
        async with throwaway(connection, rpc_timeout_s, f"queue {queue!r}") as channel:
            return await channel.queue_declare(queue, passive=True)
    except BrokerRefused as refused:
        if not is_missing(refused):
            raise
        return None


@asynccontextmanager
async def throwaway(connection: AbstractConnection, rpc_timeout_s: float, name: str) -> AsyncIterator[AbstractChannel]:
    """A channel for one request: a refused declaration closes the channel that it was made on."""
    async with within(rpc_timeout_s, name):
        if connection.transport is None:
            raise ConnectionLost(f"{name}: the connection is closed")
        channel = await connection.transport.connection.channel()
        try:
            yield channel
        except ConnectionCommandInvalid as error:
            # Before 4.0 an exchange type that the broker does not know costs the connection, and with it the channel.
            _refuse(name, error)
        except (ChannelPreconditionFailed, ChannelNotFoundEntity, ChannelAccessRefused) as error:
            _refuse(name, error)
        finally:
            if connection.transport is not None and connection.transport.connection.is_opened:
                await channel.close()


async def _compared(
    connection: AbstractConnection, rpc_timeout_s: float, name: str, declaration: Callable[..., Awaitable[None]]
) -> bool:
    """Ask whether it exists, then declare what is known to exist. False: our user may not do one or the other."""
    for passive, hidden in _HIDDEN.items():
        try:
            async with throwaway(connection, rpc_timeout_s, name) as channel:
                await declaration(channel, passive=passive)
        except BrokerRefused as error:
            if not is_hidden(error):
                raise
            log.info("topology.unverified", name=name, why=hidden)
            return False
    return True


def _refuse(name: str, error: Exception) -> NoReturn:
    text = str(error)
    differs = _DIFFERS.search(text)
    if isinstance(error, ChannelNotFoundEntity):
        advice = "is missing: run with TOPOLOGY=declare, or create it as the command `topology` prints it"
    elif isinstance(error, ChannelAccessRefused):
        advice = f"cannot be declared ({text}): grant configure and write permission, or use TOPOLOGY=passive"
    elif "unknown exchange type" in text:
        advice = (
            f"cannot be declared ({text}): set HASH_EXCHANGE to a type that this broker has, or enable its plugin "
            "(x-modulus-hash is built in from 4.3 on; x-consistent-hash is in rabbitmq_consistent_hash_exchange)"
        )
    elif differs is not None and differs[1] == "type":
        advice = (
            f"is of another type: we want {differs[2]}, the broker has {differs[3]}; where PARTITIONS or HASH_EXCHANGE "
            "was changed, run `order-worker topology --migrate`"
        )
    elif differs is not None:
        argument, ours, theirs = differs.groups()
        advice = (
            f"exists with another {argument}: we want {ours}, the broker has {theirs}; "
            "change the setting to match, or drain and delete it so that it can be declared anew"
        )
    else:
        advice = f"cannot be declared: {text}"
    raise BrokerRefused(f"{name} {advice}") from error


async def _declare_exchange(channel: AbstractChannel, exchange: ExchangeSpec, *, passive: bool = False) -> None:
    await channel.exchange_declare(exchange.name, exchange_type=exchange.type, durable=True, passive=passive)


async def _declare_queue(channel: AbstractChannel, queue: QueueSpec, *, passive: bool = False) -> None:
    await channel.queue_declare(queue.name, durable=True, arguments={**queue.arguments}, passive=passive)


async def _bind(channel: AbstractChannel, binding: BindingSpec) -> None:
    if binding.to_exchange:
        await channel.exchange_bind(destination=binding.target, source=binding.source, routing_key=binding.routing_key)
    else:
        await channel.queue_bind(binding.target, binding.source, binding.routing_key)
