"""The topology as data: the names and limits that other people's systems rely on."""

import pytest

from worker.adapters.amqp.topology import BindingSpec, Topology, topology


def defaults() -> Topology:
    return topology(
        exchange="order-updates",
        queue="order-updates.work",
        dead_queue="order-updates.dead",
        retry_delays_s=(5, 30, 120, 600),
        delivery_limit=100,
    )


def test_every_limit_is_explicit_and_positive() -> None:
    """An absent limit is 20 from RabbitMQ 4.0 on, and -1 drops at once on 3.x."""
    for queue in defaults().queues:
        limit = queue.arguments["x-delivery-limit"]

        assert isinstance(limit, int)
        assert limit > 0
    with pytest.raises(ValueError, match="positive"):
        topology(exchange="e", queue="q", dead_queue="d", retry_delays_s=(1,), delivery_limit=-1)


def test_default_names_are_those_of_the_contract() -> None:
    """Other people's systems depend on these."""
    names = [queue.name for queue in defaults().queues]

    assert names == [
        "order-updates.work",
        "order-updates.dead",
        "order-updates.retry.5",
        "order-updates.retry.30",
        "order-updates.retry.120",
        "order-updates.retry.600",
    ]
    assert [(each.name, each.type) for each in defaults().exchanges][:2] == [
        ("order-updates", "topic"),
        ("order-updates.work", "fanout"),
    ]


def test_the_topology_can_be_printed() -> None:
    """As rows for people and as plain JSON values for programs."""
    rows = defaults().rows()

    assert ("exchange", "order-updates", "topic, durable") in rows
    assert ("binding", "order-updates -> order-updates.work", "key #, to exchange") in rows
    assert defaults().to_json()["queues"][0]["arguments"]["x-queue-type"] == "quorum"


def test_partitions_stand_behind_a_hash_exchange_in_the_place_of_the_fanout() -> None:
    """Everything else is as with one queue: the tiers still lead to the same name."""
    one, made = (
        topology(
            exchange="order-updates",
            queue="order-updates.work",
            dead_queue="order-updates.dead",
            retry_delays_s=(5, 30),
            delivery_limit=100,
            partitions=count,
            hash_exchange="x-modulus-hash",
        )
        for count in (1, 3)
    )

    assert one.exchanges[1].type == "fanout"
    assert (made.exchanges[1].name, made.exchanges[1].type) == ("order-updates.work", "x-modulus-hash")
    assert made.work_queues == ("order-updates.work.0", "order-updates.work.1", "order-updates.work.2")
    assert {queue.name: queue.arguments for queue in made.queues[:3]} == dict.fromkeys(
        made.work_queues, one.queues[0].arguments
    )
    assert made.queues[3:] == one.queues[1:]
    assert [each for each in made.bindings if each.source == "order-updates.work"] == [
        BindingSpec(source="order-updates.work", target=name, routing_key="1") for name in made.work_queues
    ]
    with pytest.raises(ValueError, match="exchange type"):
        topology(exchange="e", queue="q", dead_queue="d", retry_delays_s=(1,), delivery_limit=1, partitions=2)
