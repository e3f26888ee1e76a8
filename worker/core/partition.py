"""Partitions of the work: their queues, who takes which of them first, and what each may hold.

Every worker registers on every partition, and each queue has one active consumer. Which one that is, all workers work
out alike, without asking each other. A worker puts the partitions into an order of its own: its own ones first (a
number of its index modulo the workers, where both are set), then by rendezvous hashing (the weight of a pair is the
hash of the worker's name and the queue's name). Its place in that order is its priority for the partition, so each
partition is active at the worker that puts it foremost. Places instead of the bare weights, because they spread more
evenly: of 12 partitions the busiest of 3 workers has 5.0 on average, instead of 5.8. One that comes takes partitions
from all others, and what one leaves goes to all others.

RabbitMQ heeds priorities among single active consumers from 4.0 on (seen on 4.0.5 and 4.3.6: the active one is
replaced once it has settled what it holds; on 3.10.8 it stays). Before that the first to register is the active one,
so there a worker registers on its own partitions at once and on the others ``STANDBY_S`` later.

A generation (one channel of one partition) has a number that tells its partition: counter x partitions + partition.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

MOST: Final = 64
"""Partitions at most: a share of the prefetch has to be worth a consumer."""
STANDBY_S: Final = 10.0
"""Before RabbitMQ 4.0: how much later than its owner a worker registers. Longer than the owner takes to start, and
shorter than the 30 s that a partition may be without a consumer."""
HEEDING: Final = 4
"""The major version of RabbitMQ from which priorities decide who is the single active consumer."""

_TIE_BITS: Final = 16


@dataclass(slots=True, frozen=True, kw_only=True)
class Partition:
    """One partition as one worker sees it. ``priority`` is for the broker, None where there is only this partition;
    ``own`` is whether this worker is meant to have it, as long as all workers are there."""

    number: int
    queue: str
    priority: int | None = None
    own: bool = True


def queue_names(queue: str, partitions: int) -> tuple[str, ...]:
    """The work queues: the name itself as long as there is one partition, else numbered from 0."""
    return (queue,) if partitions == 1 else tuple(f"{queue}.{number}" for number in range(partitions))


def other_queues(queue: str, partitions: int) -> tuple[str, ...]:
    """The names that work queues have with another number of partitions: what may be left from before a migration."""
    every = (queue, *(f"{queue}.{number}" for number in range(MOST)))
    wanted = frozenset(queue_names(queue, partitions))
    return tuple(name for name in every if name not in wanted)


def assigned(
    queue: str, partitions: int, *, worker: str, index: int | None = None, workers: int = 1
) -> tuple[Partition, ...]:
    """Every partition with the priority that this worker has for it. ``worker`` is a name that no other one has."""
    names = queue_names(queue, partitions)
    if partitions == 1:
        return (Partition(number=0, queue=names[0]),)
    weights = [_weight(worker, name) for name in names]
    own = [index is None or number % workers == index % workers for number in range(partitions)]
    order = sorted(range(partitions), key=lambda number: (not own[number], -weights[number]))
    places = {number: place for place, number in enumerate(order)}
    return tuple(
        Partition(
            number=number,
            queue=names[number],
            # Two workers may put a partition at the same place: then the weight decides, and not who came first.
            priority=(partitions - places[number] << _TIE_BITS) + (weights[number] & ((1 << _TIE_BITS) - 1)),
            own=own[number],
        )
        for number in range(partitions)
    )


def _weight(worker: str, queue: str) -> int:
    digest = blake2b(f"{worker}\0{queue}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def share(prefetch: int, partitions: int) -> int:
    """What one partition may hold of a worker's prefetch: an equal part, because a worker may be active on all of them;
    together never more than the whole, unless there are more partitions than messages."""
    return max(1, prefetch // partitions)


def standby_s(partition: Partition, version: str) -> float:
    """How long to wait with registering there, on a broker of this version (as it says it, such as ``3.10.8``)."""
    return 0.0 if partition.own or heeds_priorities(version) else STANDBY_S


def heeds_priorities(version: str) -> bool:
    """Whether a broker of this version makes the consumer of the highest priority the active one."""
    major = re.match(r"\d+", version)
    return major is None or int(major[0]) >= HEEDING


def generation_number(counter: int, partition: int, partitions: int) -> int:
    """The number of the ``counter``-th channel of a partition."""
    return counter * partitions + partition


def partition_of(generation: int, partitions: int) -> int:
    """The partition that a generation belongs to."""
    return generation % partitions


class LostGenerations:
    """Which channels are gone: with one of a partition all older ones of the same partition, and no others."""

    def __init__(self, partitions: int = 1) -> None:
        self._latest = [-1] * partitions

    def add(self, generation: int) -> None:
        """This channel is gone."""
        number = partition_of(generation, len(self._latest))
        self._latest[number] = max(self._latest[number], generation)

    def __contains__(self, generation: int) -> bool:
        return generation <= self._latest[generation % len(self._latest)]
