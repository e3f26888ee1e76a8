"""Looks at a broker without changing anything: what exists, how it differs from what is wanted, what we may do.

Rights are tried with requests that cannot succeed or cannot do anything, each on a channel of its own, because a
refusal closes the channel: a ``basic.consume`` with an argument of the wrong type is refused for the missing right
first, then for the argument; unbinding from an exchange that does not exist needs the right to write first. Nothing can
be unbound from the default exchange, so there a message in the name of another user is refused, for the missing right
first, then for that name. (Seen on RabbitMQ 3.10 and 4.3; nothing is published, consumed or unbound.)
"""

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from worker.adapters.amqp.connection import dial, discard
from worker.adapters.amqp.declaring import difference, is_hidden, is_missing, look, throwaway, verify
from worker.adapters.amqp.topology import Argument, ExchangeSpec, QueueSpec, Topology
from worker.core.brokerfindings import Difference, Found, Right
from worker.core.errors import BrokerRefused

log = structlog.get_logger(__name__)

DEFAULT_EXCHANGE: Final = "amq.default"
"""What RabbitMQ calls the exchange without a name where rights are meant. Dead letters go through it."""

_TYPED = re.compile(r"the value '(.*)' of type '(\w+)'$", re.DOTALL)
_BARE = re.compile(r"'(.*)'$", re.DOTALL)


@dataclass(slots=True, frozen=True, kw_only=True)
class Product:
    """What the broker says it is."""

    product: str
    version: str


@asynccontextmanager
async def connected(url: str, *, timeout_s: float) -> AsyncIterator[AbstractConnection]:
    """A connection for the block; errors as those of ``dial``."""
    connection = await dial(url, name="order-worker check", heartbeat_s=10, timeout_s=timeout_s)
    try:
        yield connection
    finally:
        await discard(connection)


def product(connection: AbstractConnection) -> Product:
    """From the server properties of the handshake."""
    transport = connection.transport
    told = transport.connection.server_properties if transport is not None else {}
    return Product(product=str(told.get("product", "")), version=str(told.get("version", "")))


async def objects(connection: AbstractConnection, wanted: Topology, *, rpc_timeout_s: float) -> list[Found]:
    """Every exchange and queue of the topology. Raises ConnectionLost."""
    found = [await _exchange(connection, exchange, rpc_timeout_s) for exchange in wanted.exchanges]
    return found + [await _queue(connection, queue, rpc_timeout_s) for queue in wanted.queues]


async def leftovers(connection: AbstractConnection, names: Iterable[str], *, rpc_timeout_s: float) -> list[Found]:
    """Those of these queues that exist and may be looked at, in their order. Raises ConnectionLost.

    They were made one after the other, so behind the first there are no more where one is missing.
    """
    found: list[Found] = []
    for number, name in enumerate(names):
        seen = await _exists(connection, Found(kind="queue", name=name), rpc_timeout_s)
        if seen.exists and not seen.hidden and not seen.problem:
            found.append(seen)
        elif number:
            break
    return found


async def _exchange(connection: AbstractConnection, exchange: ExchangeSpec, rpc_timeout_s: float) -> Found:
    seen = await _exists(connection, Found(kind="exchange", name=exchange.name), rpc_timeout_s)
    if seen.hidden or not seen.exists:
        return seen
    try:
        return replace(seen, verified=not await verify(connection, _only(exchange), rpc_timeout_s=rpc_timeout_s))
    except BrokerRefused as refused:
        differs = difference(refused)
        if differs is None:
            return _refused(seen, refused)
        argument, theirs = differs
        wanted = exchange.type if argument == "type" else "as declared by the worker"
        return replace(seen, differences=(Difference(argument=argument, wanted=wanted, found=theirs.strip("'")),))


async def _queue(connection: AbstractConnection, queue: QueueSpec, rpc_timeout_s: float) -> Found:
    """A refusal names one argument; it is taken over and the rest compared again, until nothing differs."""
    seen = await _exists(connection, Found(kind="queue", name=queue.name), rpc_timeout_s)
    arguments = {**queue.arguments}
    differences: list[Difference] = []
    while seen.exists and not seen.problem and not seen.hidden:
        try:
            compared = _only(replace(queue, arguments=arguments))
            unverified = await verify(connection, compared, rpc_timeout_s=rpc_timeout_s)
            return replace(seen, verified=not unverified, differences=tuple(differences))
        except BrokerRefused as refused:
            differs = difference(refused)
            if differs is None or any(each.argument == differs[0] for each in differences):
                # What follows from a difference that was told already (another queue type) is no news.
                return replace(seen if differences else _refused(seen, refused), differences=tuple(differences))
            argument, theirs = differs
            value = _value(theirs, queue.arguments.get(argument))
            wanted = str(queue.arguments.get(argument, "not set"))
            found = "not set" if value is None else str(value)
            differences.append(Difference(argument=argument, wanted=wanted, found=found))
            arguments.pop(argument, None)
            if value is not None:
                arguments[argument] = value
    return seen


async def _exists(connection: AbstractConnection, seen: Found, rpc_timeout_s: float) -> Found:
    """Whether it does, with what waits in a queue."""
    try:
        if seen.kind == "exchange":
            async with throwaway(connection, rpc_timeout_s, f"exchange {seen.name!r}") as channel:
                await channel.exchange_declare(seen.name, passive=True)
            return seen
        told = await look(connection, seen.name, rpc_timeout_s)
        if told is None:
            return replace(seen, exists=False)
        return replace(seen, messages=told.message_count, consumers=told.consumer_count)
    except BrokerRefused as refused:
        return _refused(seen, refused)


def _refused(seen: Found, refused: BrokerRefused) -> Found:
    if is_hidden(refused):
        return replace(seen, hidden=True, verified=False)
    if is_missing(refused):
        return replace(seen, exists=False)
    return replace(seen, problem=str(refused))


def _value(theirs: str, ours: Argument | None) -> Argument | None:
    """The broker's spelling of a value; its type is only told where we have none."""
    if typed := _TYPED.search(theirs):
        text, kind = typed[1], typed[2]
        return text == "true" if kind == "bool" else int(text) if kind != "longstr" and text.isdigit() else text
    bare = _BARE.search(theirs)
    if bare is None:
        return None
    text = bare[1]
    if isinstance(ours, bool):
        return text == "true"
    return int(text) if isinstance(ours, int) and text.removeprefix("-").isdigit() else text


def _only(thing: ExchangeSpec | QueueSpec) -> Topology:
    return Topology(
        exchanges=(thing,) if isinstance(thing, ExchangeSpec) else (),
        queues=(thing,) if isinstance(thing, QueueSpec) else (),
        bindings=(),
        work_queue="",
        dead_queue="",
        retry_exchanges=(),
    )


async def rights(
    connection: AbstractConnection, *, queues: Iterable[str], exchanges: Iterable[str], rpc_timeout_s: float
) -> list[Right]:
    """Whether we may read these queues, and write to these exchanges and the default one. Raises ConnectionLost."""
    tried = [await _may_read(connection, name, rpc_timeout_s) for name in queues]
    tried += [await _may_write(connection, name, rpc_timeout_s) for name in exchanges]
    return [*tried, await _may_write_to_the_default(connection, rpc_timeout_s)]


async def _may_read(connection: AbstractConnection, queue: str, rpc_timeout_s: float) -> Right:
    async def ignore(_message: DeliveredMessage) -> None:
        """Nothing is ever delivered: the consumer is refused."""

    granted: bool | None = True
    try:
        async with throwaway(connection, rpc_timeout_s, f"reading {queue!r}") as channel:
            await channel.basic_qos(prefetch_count=1)
            await channel.basic_consume(queue, ignore, arguments={"x-priority": "not a number"})
    except BrokerRefused as refused:
        granted = _granted(refused, queue)
    return Right(verb="read", kind="queue", name=queue, granted=granted)


async def _may_write(connection: AbstractConnection, exchange: str, rpc_timeout_s: float) -> Right:
    nothing = f"order-worker.check.{uuid4().hex}"
    if not (await _exists(connection, Found(kind="exchange", name=exchange), rpc_timeout_s)).exists:
        return Right(verb="write", kind="exchange", name=exchange, granted=None)
    granted: bool | None = True
    try:
        async with throwaway(connection, rpc_timeout_s, f"writing to {exchange!r}") as channel:
            await channel.exchange_unbind(destination=exchange, source=nothing, routing_key=nothing)
    except BrokerRefused as refused:
        granted = _granted(refused, exchange)
    return Right(verb="write", kind="exchange", name=exchange, granted=granted)


async def _may_write_to_the_default(connection: AbstractConnection, rpc_timeout_s: float) -> Right:
    nobody = f"order-worker.check.{uuid4().hex}"
    granted: bool | None = True
    try:
        async with throwaway(connection, rpc_timeout_s, f"writing to {DEFAULT_EXCHANGE!r}") as channel:
            await channel.basic_publish(b"", routing_key=nobody, properties=Basic.Properties(user_id=nobody))
    except BrokerRefused as refused:
        granted = _granted(refused, DEFAULT_EXCHANGE)
    return Right(verb="write", kind="exchange", name=DEFAULT_EXCHANGE, granted=granted)


def _granted(refused: BrokerRefused, name: str) -> bool | None:
    """From what the request was refused for: this name's right, its absence, or something that comes later."""
    names_it = f"'{name}'" in str(refused.__cause__)
    if is_hidden(refused):
        return not names_it
    return None if is_missing(refused) and names_it else True
