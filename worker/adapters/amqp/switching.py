"""From one number of partitions to another: the new queues are fed and the others no longer, with no gap in between.

An exchange cannot change its type, and one that is deleted takes what is published meanwhile with it. So where the type
of the exchange in front of the work queues changes, a detour carries the events past it:

    1. declare the new queues, and a detour of the new type that feeds them
    2. bind the detour to the producers' exchange, and delete the old exchange at once
    3. declare it anew with the new type, bind it, and take the detour away

Between the two halves of step 2 an event may reach an old and a new queue: a duplicate, never a loss. A copy out of a
retry tier that comes due before step 3 stays there, and the broker tries again (at-least-once; within minutes). Every
step may be repeated, so one that was interrupted is done again from the start.

What still lies in the queues that are no longer fed is for ``moving.py``.
"""

from dataclasses import replace

import structlog
from aio_pika.abc import AbstractConnection

from worker.adapters.amqp.declaring import RPC_TIMEOUT_S, declare, difference, look, throwaway
from worker.adapters.amqp.topology import WEIGHT, BindingSpec, ExchangeSpec, Topology
from worker.core.errors import BrokerRefused
from worker.core.partition import other_queues

log = structlog.get_logger(__name__)


def detour_name(queue: str) -> str:
    """The exchange that stands in while the one in front of the work queues is made anew."""
    return f"{queue}.detour"


async def switch(
    connection: AbstractConnection, wanted: Topology, *, rpc_timeout_s: float = RPC_TIMEOUT_S
) -> tuple[str, ...]:
    """Have the work queues of ``wanted`` fed, and no others. Returns the others that exist, fed no longer.

    Raises BrokerRefused where something else differs, or where we may not; ConnectionLost. Then run it again.
    """
    switching = _Switching(connection, wanted, rpc_timeout_s)
    await switching.prepare()
    if not await switching.fits():
        log.info("topology.switching", name=wanted.work_queue)
        await switching.replace_exchange()
    await declare(connection, wanted, rpc_timeout_s=rpc_timeout_s)
    others = await existing(connection, other_queues(wanted.work_queue, len(wanted.work_queues)), rpc_timeout_s)
    await switching.starve(others)
    await switching.end_detour()
    return others


async def existing(
    connection: AbstractConnection, names: tuple[str, ...], rpc_timeout_s: float = RPC_TIMEOUT_S
) -> tuple[str, ...]:
    """Those of these queues that exist. Raises BrokerRefused where we may not even look, and ConnectionLost."""
    return tuple([name for name in names if await look(connection, name, rpc_timeout_s) is not None])


class _Switching:
    def __init__(self, connection: AbstractConnection, wanted: Topology, rpc_timeout_s: float) -> None:
        self._connection = connection
        self._wanted = wanted
        self._rpc_timeout_s = rpc_timeout_s
        self._source = wanted.exchanges[0].name
        self._front = next(each for each in wanted.exchanges if each.name == wanted.work_queue)
        self._detour = ExchangeSpec(name=detour_name(self._front.name), type=self._front.type)

    async def prepare(self) -> None:
        """Everything but the exchange in front of the work queues."""
        front = self._front.name
        await self._declare(
            replace(
                self._wanted,
                exchanges=tuple(each for each in self._wanted.exchanges if each.name != front),
                bindings=tuple(each for each in self._wanted.bindings if front not in (each.source, each.target)),
            )
        )

    async def fits(self) -> bool:
        """Whether it is of the wanted type, or missing; then it is made. What else differs is refused."""
        return await self._made(self._front)

    async def _made(self, exchange: ExchangeSpec) -> bool:
        try:
            await self._declare(replace(self._wanted, exchanges=(exchange,), queues=(), bindings=()))
        except BrokerRefused as refused:
            differs = difference(refused)
            if differs is None or differs[0] != "type":
                raise
            return False
        return True

    async def replace_exchange(self) -> None:
        """Steps 1 and 2, and the first half of 3."""
        if not await self._made(self._detour):
            await self.end_detour()  # of a switch to another type that was interrupted: the old exchange still works
            await self._made(self._detour)
        bindings = [
            BindingSpec(source=self._detour.name, target=name, routing_key=WEIGHT) for name in self._wanted.work_queues
        ]
        await self._declare(replace(self._wanted, exchanges=(), queues=(), bindings=tuple(bindings)))
        async with throwaway(self._connection, self._rpc_timeout_s, f"exchange {self._front.name!r}") as channel:
            await channel.exchange_bind(destination=self._detour.name, source=self._source, routing_key="#")
            await channel.exchange_delete(self._front.name)
        await self._made(self._front)

    async def starve(self, queues: tuple[str, ...]) -> None:
        """Nothing more gets into these; RabbitMQ takes it well where they are not bound."""
        for name in queues:
            async with throwaway(self._connection, self._rpc_timeout_s, f"binding of {name!r}") as channel:
                for key in ("", WEIGHT):
                    await channel.queue_unbind(name, self._front.name, key)

    async def end_detour(self) -> None:
        """Its bindings go with it; deleting what is not there is no error."""
        async with throwaway(self._connection, self._rpc_timeout_s, f"exchange {self._detour.name!r}") as channel:
            await channel.exchange_delete(self._detour.name)

    async def _declare(self, some: Topology) -> None:
        await declare(self._connection, some, rpc_timeout_s=self._rpc_timeout_s)
