"""The resources for RabbitMQ's Messaging Topology Operator declare what the worker would: no more, no less."""

import re
from collections.abc import Mapping

import pytest

from tests.k8s.overlays import WORKER, rendered, settings_of
from tests.support.kustomize import Resource, find
from worker.adapters.amqp.topology import BindingSpec, ExchangeSpec, QueueSpec, Topology, planned
from worker.config import PREFIX, Settings
from worker.core.settings import TopologyMode

OVERLAY = "overlays/rabbitmq-operator"


@pytest.fixture(name="settings")
def _settings() -> Settings:
    """Of the overlay's ConfigMap; names that are given by code need no environment."""
    given = {key.removeprefix(PREFIX).lower(): value for key, value in settings_of(OVERLAY).items()}
    return Settings.model_validate(given | {"admin_token": "a-token", "secrets_dir": ""})


@pytest.fixture(name="plan")
def _plan(settings: Settings) -> Topology:
    return planned(settings.broker)


def specs(kind: str) -> list[Resource]:
    """What the overlay says of all resources of a kind."""
    return [each["spec"] for each in rendered(OVERLAY) if each["kind"] == kind and "vhost" not in each["spec"]]


def test_exchanges_are_those_of_the_worker(plan: Topology) -> None:
    """Name and type; all durable, none deleted by itself."""
    assert all(each["durable"] and not each["autoDelete"] and "arguments" not in each for each in specs("Exchange"))
    declared = [ExchangeSpec(name=each["name"], type=each["type"]) for each in specs("Exchange")]
    assert sorted(declared, key=str) == sorted(plan.exchanges, key=str)


def test_queues_are_those_of_the_worker(plan: Topology) -> None:
    """Name and every argument, with its type: 100 is not "100" to RabbitMQ."""
    assert all(each["durable"] and not each["autoDelete"] for each in specs("Queue"))
    declared = {each["name"]: each["arguments"] | {"x-queue-type": each["type"]} for each in specs("Queue")}
    assert _typed(declared) == _typed({each.name: each.arguments for each in plan.queues})
    assert len(specs("Queue")) == len(plan.queues)


def _typed(queues: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, tuple[type, object]]]:
    return {name: {key: (type(value), value) for key, value in arguments.items()} for name, arguments in queues.items()}


def test_bindings_are_those_of_the_worker(plan: Topology) -> None:
    """Source, target, kind of target and key."""
    declared = [
        BindingSpec(
            source=each["source"],
            target=each["destination"],
            routing_key=each["routingKey"],
            to_exchange=each["destinationType"] == "exchange",
        )
        for each in specs("Binding")
    ]
    assert all("arguments" not in each for each in specs("Binding"))
    assert sorted(declared, key=str) == sorted(plan.bindings, key=str)


def test_everything_is_made_in_the_same_cluster() -> None:
    """The one of the overlay."""
    cluster = find(rendered(OVERLAY), "RabbitmqCluster", "order-broker")["metadata"]["name"]
    theirs = [each for each in rendered(OVERLAY) if "rabbitmqClusterReference" in each.get("spec", {})]

    assert len(theirs) > 20
    assert {each["spec"]["rabbitmqClusterReference"]["name"] for each in theirs} == {cluster}


def test_the_worker_only_checks_what_the_operator_makes(settings: Settings) -> None:
    """Its user may not declare, and two who declare differently would fight."""
    assert settings.topology is TopologyMode.PASSIVE


def test_the_user_may_do_what_the_worker_does_and_no_more(plan: Topology) -> None:
    """Read work and dead letters, write events and copies, make the lock of `order-worker dead`."""
    rights = find(rendered(OVERLAY), "Permission", WORKER)["spec"]["permissions"]
    names = {*(each.name for each in plan.exchanges), *(each.name for each in plan.queues)}
    writable = {"amq.default", *(each.name for each in plan.exchanges)}
    lock = f"{plan.dead_queue}.lock"  # see worker/adapters/amqp/deadletters.py

    assert allowed(rights["read"], {*names, lock, "other"}) == {plan.work_queue, plan.dead_queue, lock}
    assert allowed(rights["write"], {*names, lock, "other", "amq.default"}) == writable
    assert allowed(rights["configure"], {*names, lock, "other"}) == {lock}


def allowed(pattern: str, names: set[str]) -> set[str]:
    """The names that a permission fits; RabbitMQ searches, it does not match the whole."""
    return {name for name in names if re.search(pattern, name)}


def test_queue_names_are_told_apart() -> None:
    """Two resources for one queue would overwrite each other."""
    queues = [QueueSpec(name=each["name"]).name for each in specs("Queue")]
    assert len(set(queues)) == len(queues)
