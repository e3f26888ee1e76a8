"""Every manifest is what Kubernetes, or the operator whose resource it is, understands; unknown fields are refused."""

import copy

import jsonschema
import kubernetes_validate
import pytest

from tests.k8s.overlays import K8S, NAMES, rendered
from tests.support import crdmodels
from tests.support.kustomize import Resource, documents, find
from tests.support.rabbitmqkinds import SCHEMAS

OLDEST, NEWEST = "1.30", "1.37"
"""matchLabelKeys of a topology spread and unhealthyPodEvictionPolicy are on by default from 1.27 on; 1.30 is the oldest
version that clouds still run."""
BY_TYPES = ("keda.sh", "monitoring.coreos.com")


def group(resource: Resource) -> str:
    """``keda.sh`` of ``keda.sh/v1alpha1``, empty for the core."""
    return str(resource["apiVersion"]).rpartition("/")[0]


def of_kubernetes(resource: Resource) -> bool:
    """Whether it is a kind of Kubernetes itself."""
    return group(resource) not in (*BY_TYPES, "rabbitmq.com")


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_understands_its_kinds(name: str, version: str) -> None:
    """By the schemas of that version, in their strict form."""
    for resource in filter(of_kubernetes, rendered(name)):
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_refused() -> None:
    """The check above would find a typing error."""
    wrong = copy.deepcopy(find(rendered("base"), "Deployment", "order-worker"))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 45

    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


@pytest.mark.timeout(360)  # the first time its packages are fetched
def test_keda_and_prometheus_operator_understand_theirs() -> None:
    """By the types and validators of their own API packages."""
    theirs = [each for name in NAMES for each in rendered(name) if group(each) in BY_TYPES]

    assert {each["kind"] for each in theirs} == {
        "ServiceMonitor",
        "PrometheusRule",
        "ScaledObject",
        "TriggerAuthentication",
    }
    assert crdmodels.problems(theirs) == []


@pytest.mark.timeout(360)
def test_a_wrong_custom_resource_is_refused() -> None:
    """Both an unknown field and a value of the wrong form."""
    monitor = copy.deepcopy(find(rendered("base"), "ServiceMonitor", "order-worker"))
    monitor["spec"]["endpoints"][0] |= {"interval": "15 seconds"}
    rule = copy.deepcopy(find(rendered("base"), "PrometheusRule", "order-worker"))
    rule["spec"]["grups"] = []

    found = crdmodels.problems([monitor, rule])
    assert any("interval must match" in line for line in found)
    assert any("grups" in line for line in found)


@pytest.mark.parametrize("name", NAMES)
def test_rabbitmq_operators_understand_theirs(name: str) -> None:
    """As far as our own account of their fields goes."""
    for resource in [each for each in rendered(name) if group(each) == "rabbitmq.com"]:
        jsonschema.validate(resource, SCHEMAS[resource["kind"]])


def test_a_misspelt_field_of_a_queue_is_refused() -> None:
    """Operators drop what they do not know, and the queue would be another one."""
    queue = copy.deepcopy(find(rendered("overlays/rabbitmq-operator"), "Queue", "order-updates.work"))
    queue["spec"]["argments"] = queue["spec"].pop("arguments")

    with pytest.raises(jsonschema.ValidationError, match="argments"):
        jsonschema.validate(queue, SCHEMAS["Queue"])


def test_no_file_is_forgotten() -> None:
    """Each manifest is in a kustomization: nothing lies about unchecked."""
    kept = {path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml"}
    named = {
        (folder / each).resolve()
        for folder in map(K8S.joinpath, NAMES)
        for plan in documents(folder / "kustomization.yaml")
        for each in [*plan["resources"], *(patch["path"] for patch in plan.get("patches", []) if "path" in patch)]
    }
    assert {path.resolve() for path in kept} <= named
