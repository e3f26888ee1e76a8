"""The overlay keda scales on what there is to do, within what partitions allow, and slowly in."""

import re
from typing import Any

from tests.k8s.overlays import WORKER, deployment, rendered, settings_of
from tests.support.kustomize import find
from worker.config import Settings

OVERLAY = "overlays/keda"
PARTITIONS = int(settings_of(OVERLAY)["ORDER_WORKER_PARTITIONS"])


def scaled() -> dict[str, Any]:
    """What the ScaledObject says."""
    return dict(find(rendered(OVERLAY), "ScaledObject", WORKER)["spec"])


def trigger() -> dict[str, str]:
    """The metadata of its only trigger."""
    [only] = scaled()["triggers"]
    assert only["type"] == "rabbitmq"
    return dict(only["metadata"])


def test_it_scales_the_worker_and_nobody_else_does() -> None:
    """A number of replicas in the Deployment would set KEDA's back with each apply."""
    target = scaled()["scaleTargetRef"]

    assert (target["kind"], target["name"]) == ("Deployment", deployment(OVERLAY)["metadata"]["name"])
    assert "replicas" not in deployment(OVERLAY)["spec"]


def test_there_are_never_more_workers_than_partitions_nor_fewer_than_two() -> None:
    """One more would be a standby everywhere; one less would leave the partitions without a standby."""
    assert scaled()["maxReplicaCount"] == PARTITIONS
    assert scaled()["minReplicaCount"] == scaled()["fallback"]["replicas"] == 2


def test_all_partitions_are_counted_and_nothing_else() -> None:
    """The work queues; neither retries, which wait for their time, nor dead letters, which wait for people."""
    queue = Settings.model_fields["queue"].default
    dead = Settings.model_fields["dead_letter_queue"].default
    others = {queue, dead, f"{queue}.0.other", f"{queue.removesuffix('.work')}.retry.5"}

    assert (trigger()["useRegex"], trigger()["operation"]) == ("true", "sum")
    assert all(re.search(trigger()["queueName"], f"{queue}.{number}") for number in range(PARTITIONS))
    assert not any(re.search(trigger()["queueName"], name) for name in others)
    assert int(trigger()["pageSize"]) >= PARTITIONS


def test_what_workers_hold_is_counted_and_is_no_reason_for_another_one() -> None:
    """Without the unacked a new worker would look like less work; below the prefetch it would look like more."""
    assert (trigger()["protocol"], trigger()["excludeUnacknowledged"]) == ("http", "false")
    assert float(trigger()["value"]) > 2 * Settings.model_fields["prefetch"].default


def test_it_scales_in_slowly_and_out_at_once() -> None:
    """Each worker that goes has its partitions handed over; a backlog that grows again needs it back."""
    behaviour = scaled()["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    [down], [up] = behaviour["scaleDown"]["policies"], behaviour["scaleUp"]["policies"]

    assert (
        behaviour["scaleDown"]["stabilizationWindowSeconds"] >= 600 > behaviour["scaleUp"]["stabilizationWindowSeconds"]
    )
    assert (down["type"], down["value"]) == ("Pods", 1)
    assert down["periodSeconds"] > up["periodSeconds"]
    grace = deployment(OVERLAY)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert down["periodSeconds"] > 2 * grace


def test_the_management_api_is_read_with_an_address_from_the_secret() -> None:
    """The one that `check` uses, too: a setting of the worker."""
    [reference] = find(rendered(OVERLAY), "TriggerAuthentication", WORKER)["spec"]["secretTargetRef"]

    assert (reference["parameter"], reference["name"]) == ("host", WORKER)
    assert reference["key"].removeprefix("ORDER_WORKER_").lower() in Settings.model_fields
    assert "host" not in trigger()
