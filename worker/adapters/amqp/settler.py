"""Carries out dispositions on the broker: copies first, each confirmed, dead ones then indexed, and only then
acknowledgements.

The copies of one entry are placed one after the other, oldest first, and stop at the first that fails; entries go side
by side. So a crash at any point leaves the broker with a message twice at worst, and with no younger one of an entry
settled before an older one. Between copy and index it leaves a dead letter that is not in the index.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import structlog

from worker.adapters.amqp.publisher import Publisher
from worker.core.errors import CopyFailed, CopyUnencodable
from worker.core.headers import Copy, body_only, dead_copy, retry_copy
from worker.core.history import IndexedLetter
from worker.core.letterindex import placed
from worker.core.model import Ack, Dead, Delivery, Release, Retry, Settlement
from worker.ports import Index, WallClock, wall_us

log = structlog.get_logger(__name__)

Group = list[Settlement]


class Holding(Protocol):
    """Whoever has the deliveries in hand: ``consumer.py``, or ``partitions.py`` for several queues."""

    def holds(self, delivery: Delivery) -> bool:
        """Whether this delivery can still be settled."""
        ...

    def still_held(self, settlements: Iterable[Settlement]) -> Sequence[Settlement]:
        """Those whose delivery it ``holds``, in their order."""
        ...

    async def acknowledge(self, generation: int, groups: Sequence[Sequence[int]]) -> bool:
        """Acknowledge tags of a channel, each group oldest first; False where it is gone."""
        ...


@dataclass(slots=True)
class _Placed:
    """What came of the copies: the letters of the dead ones, and those that failed."""

    letters: list[IndexedLetter] = field(default_factory=list)
    failures: list[CopyFailed] = field(default_factory=list)


class BrokerSettler:
    """Implements ``ports.Settler``: the consumer acknowledges, the publisher places the copies.

    ``dead_queue`` is reached through the default exchange, the retry tiers (in the order of their delays) through their
    fanout exchanges, so that a copy keeps its routing key. ``worker`` is our version, for the header ``ow-worker``.
    """

    def __init__(
        self,
        consumer: Holding,
        publisher: Publisher,
        *,
        dead_queue: str,
        retry_exchanges: Sequence[str],
        worker: str,
        wall_us: WallClock = wall_us,
    ) -> None:
        if not retry_exchanges:
            raise ValueError("at least one retry tier is needed")
        self._consumer = consumer
        self._publisher = publisher
        self._dead_queue = dead_queue
        self._tiers = tuple(retry_exchanges)
        self._worker = worker
        self._wall_us = wall_us

    async def settle(self, settlements: Sequence[Settlement], index: Index | None = None) -> None:
        """See ``ports.Settler``. Calling it again with the same settlements carries out what is still open, only.

        Raises CopyFailed for the first copy that failed; that delivery and the younger ones of its entry stay open, all
        others were acknowledged.
        """
        if {type(settlement.disposition) for settlement in settlements} == {Ack}:
            await self._acknowledge(settlements)  # nearly every batch: there is no copy to place
            return
        groups = self._groups(settlements)
        placed = await self._place_copies(groups)
        if placed.letters and index is not None:
            await index(placed.letters)
        await self._acknowledge(chain.from_iterable(groups))
        if failures := placed.failures:
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            raise CopyFailed(f"{failures[0]}{more}") from failures[0]

    def _groups(self, settlements: Sequence[Settlement]) -> list[Group]:
        """The settlements that can still be carried out, by entry; each entry in the order given."""
        groups: dict[object, Group] = {}
        for settlement in settlements:
            delivery, update = settlement.delivery, settlement.update
            if isinstance(settlement.disposition, Release) or not self._consumer.holds(delivery):
                continue
            entry = (delivery.generation, update.order_id) if update is not None else delivery
            groups.setdefault(entry, []).append(settlement)
        return list(groups.values())

    async def _place_copies(self, groups: Sequence[Group]) -> _Placed:
        """Cuts every group down to what may be acknowledged now; what was cut off for a failure is told."""
        placed = _Placed()
        async with asyncio.TaskGroup() as tasks:
            for group in groups:
                if any(not isinstance(each.disposition, Ack) for each in group):
                    tasks.create_task(self._place_group(group, placed), name="place copies")
        return placed

    async def _place_group(self, group: Group, placed: _Placed) -> None:
        for index, settlement in enumerate(group):
            if not self._consumer.holds(settlement.delivery):
                del group[index:]
                return
            try:
                if (letter := await self._place(settlement)) is not None:
                    placed.letters.append(letter)
            except CopyFailed as error:
                placed.failures.append(error)
                del group[index:]
                return
            except BaseException:
                # A task group takes no notice of a task that was cancelled alone, and what is left gets acknowledged.
                del group[index:]
                raise

    async def _place(self, settlement: Settlement) -> IndexedLetter | None:
        """Place the copy that the disposition asks for; the letter for the index where it is a dead one."""
        now_us = self._wall_us()
        match settlement.disposition:
            case Dead():
                copy = dead_copy(settlement, now_us=now_us, worker=self._worker)
                stored, copy_id = await self._publish("", self._dead_queue, copy)
                return placed(settlement, stored, copy_id, queue=self._dead_queue, now_us=now_us)
            case Retry(tier=tier):
                copy = retry_copy(settlement, now_us=now_us, worker=self._worker)
                exchange = self._tiers[min(tier, len(self._tiers) - 1)]
                await self._publish(exchange, _routing_key(settlement, copy), copy)
            case Ack() | Release():
                pass
        return None

    async def _publish(self, exchange: str, routing_key: str, copy: Copy) -> tuple[Copy, str]:
        """The copy as it went out, and its message id."""
        try:
            return copy, await self._publisher.place(exchange, routing_key, copy.body, copy.properties)
        except CopyUnencodable as error:
            log.warning("broker.copy_reduced", target=exchange or routing_key, detail=str(error))
            return await self._publish_reduced(exchange, routing_key, body_only(copy))

    async def _publish_reduced(self, exchange: str, routing_key: str, copy: Copy) -> tuple[Copy, str]:
        try:
            return copy, await self._publisher.place(exchange, routing_key, copy.body, copy.properties)
        except CopyUnencodable as error:
            raise CopyFailed(f"not even a body-only copy can be encoded: {error}") from error

    async def _acknowledge(self, settlements: Iterable[Settlement]) -> None:
        """Those that are still held, by channel and entry; each entry older before newer, as they are given."""
        generations: dict[int, dict[object, list[int]]] = {}
        for settlement in self._consumer.still_held(settlements):
            delivery, update = settlement.delivery, settlement.update
            entries = generations.get(delivery.generation)
            if entries is None:
                entries = generations[delivery.generation] = {}
            entry = update.order_id if update is not None else delivery
            tags = entries.get(entry)
            if tags is None:
                entries[entry] = [delivery.tag]
            else:
                tags.append(delivery.tag)
        for generation, entries in generations.items():
            await self._consumer.acknowledge(generation, list(entries.values()))


def _routing_key(settlement: Settlement, copy: Copy) -> str:
    """The producer's key: after a detour through a retry queue the header knows it for certain."""
    kept = copy.properties.headers.get("ow-routing-key")
    return kept if isinstance(kept, str) else settlement.delivery.routing_key
