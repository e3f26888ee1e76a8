"""The exchanges, queues and bindings as data; ``declaring.py`` brings them to the broker or checks that they are there.

    producers -> [order-updates] topic --#--> [order-updates.work] fanout --> order-updates.work -> worker
                                                     ^                              | (safety net: delivery limit)
                     order-updates.retry.<delay> ----+ (TTL over, key kept)         v
                                                              [order-updates.dead] fanout --> order-updates.dead

With partitions the exchange in front of the work queues spreads by a hash of the routing key, which is the order's id:

    producers -> [order-updates] topic --#--> [order-updates.work] x-modulus-hash --> order-updates.work.0 ... .n-1

Rules of RabbitMQ that the arguments follow (quorum queues, 3.10 to 4.x): dead-lettering is at most once, and silent
about losses, unless the strategy is at-least-once, which in turn needs ``reject-publish``; a delivery limit that is not
given is none on 3.x and 20 from 4.0, and -1 means "drop at once" on 3.x; one queue per delay, because messages of
different TTLs in one queue wait for the slowest in front.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from worker.core.partition import queue_names
from worker.core.settings import BrokerSettings

Argument = str | int | bool

RARELY = 1_000_000
"""Delivery limit of queues that nobody consumes in earnest: looking into them must never use it up."""
WEIGHT = "1"
"""Routing key of a partition's binding: its weight for a consistent-hash exchange; the modulus one ignores it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSpec:
    """A durable exchange."""

    name: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A durable queue and its arguments."""

    name: str
    arguments: dict[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingSpec:
    """``source`` (an exchange) feeds ``target``, an exchange where ``to_exchange``, else a queue."""

    source: str
    target: str
    routing_key: str = ""
    to_exchange: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Everything the worker needs on the broker, as data. ``work_queue`` is the name of the exchange in front of the
    ``work_queues``, and of the queue where there is only one."""

    exchanges: tuple[ExchangeSpec, ...]
    queues: tuple[QueueSpec, ...]
    bindings: tuple[BindingSpec, ...]
    work_queue: str
    dead_queue: str
    retry_exchanges: tuple[str, ...]
    work_queues: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts, for ``order-worker topology --json``."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str, str]]:
        """(kind, name, details) of everything, for people."""
        exchanges = [("exchange", each.name, f"{each.type}, durable") for each in self.exchanges]
        queues = [("queue", each.name, _arguments_text(each.arguments)) for each in self.queues]
        bindings = [("binding", f"{each.source} -> {each.target}", _binding_text(each)) for each in self.bindings]
        return exchanges + queues + bindings


def _arguments_text(arguments: dict[str, Argument]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(arguments.items()))


def _binding_text(binding: BindingSpec) -> str:
    return f"key {binding.routing_key or '(none)'}, to {'exchange' if binding.to_exchange else 'queue'}"


def topology(
    *,
    exchange: str,
    queue: str,
    dead_queue: str,
    retry_delays_s: Sequence[float],
    delivery_limit: int,
    partitions: int = 1,
    hash_exchange: str | None = None,
) -> Topology:
    """The topology for these names. The retry tiers belong to the work queue and carry its name.

    ``hash_exchange`` is the type of the exchange that spreads over several partitions. ``delivery_limit`` has to be
    positive: it is what stops a message that kills every worker which touches it.
    """
    if delivery_limit < 1:
        raise ValueError("delivery_limit must be positive: RabbitMQ 3.x drops everything at -1")
    if partitions > 1 and hash_exchange is None:
        raise ValueError("partitions need an exchange type that spreads over them")
    tiers = [(retry_name(queue, delay), delay) for delay in retry_delays_s]
    fanouts = [dead_queue, *(name for name, _ in tiers)]
    work_queues = queue_names(queue, partitions)
    key = "" if partitions == 1 else WEIGHT
    return Topology(
        exchanges=(
            ExchangeSpec(name=exchange, type="topic"),
            ExchangeSpec(name=queue, type="fanout" if partitions == 1 else str(hash_exchange)),
            *(ExchangeSpec(name=name, type="fanout") for name in fanouts),
        ),
        queues=(
            *(QueueSpec(name=name, arguments=_work_arguments(dead_queue, delivery_limit)) for name in work_queues),
            QueueSpec(name=dead_queue, arguments={"x-queue-type": "quorum", "x-delivery-limit": RARELY}),
            *(QueueSpec(name=name, arguments=_retry_arguments(queue, delay)) for name, delay in tiers),
        ),
        bindings=(
            BindingSpec(source=exchange, target=queue, routing_key="#", to_exchange=True),
            *(BindingSpec(source=queue, target=name, routing_key=key) for name in work_queues),
            *(BindingSpec(source=name, target=name) for name in fanouts),
        ),
        work_queue=queue,
        dead_queue=dead_queue,
        retry_exchanges=tuple(name for name, _ in tiers),
        work_queues=work_queues,
    )


def planned(broker: BrokerSettings) -> Topology:
    """The topology that the settings ask for."""
    return topology(
        exchange=broker.exchange,
        queue=broker.queue,
        dead_queue=broker.dead_letter_queue,
        retry_delays_s=broker.retry_delays_s,
        delivery_limit=broker.delivery_limit,
        partitions=broker.partitions,
        hash_exchange=broker.hash_exchange,
    )


def retry_name(queue: str, delay_s: float) -> str:
    """Exchange and queue of one delay: ``order-updates.retry.30`` for the queue ``order-updates.work``."""
    return f"{queue.removesuffix('.work')}.retry.{delay_s:g}"


def _work_arguments(dead_exchange: str, delivery_limit: int) -> dict[str, Argument]:
    return {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-delivery-limit": delivery_limit,
        # A fanout exchange, and no routing key of its own: the message keeps the key it was published with.
        "x-dead-letter-exchange": dead_exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _retry_arguments(work_exchange: str, delay_s: float) -> dict[str, Argument]:
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": round(delay_s * 1000),
        "x-delivery-limit": RARELY,
        "x-dead-letter-exchange": work_exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
