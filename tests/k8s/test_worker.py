"""What the manifests say about the worker fits what the worker is: settings, times, ports, files."""

import os
import re
from typing import Any

import pytest

from tests.k8s.overlays import K8S, WORKER, deployment, rendered, settings_of, with_worker
from tests.support.kustomize import Resource, containers, find
from worker.adapters.admin import OPEN_TO_ALL
from worker.config import PREFIX, Settings, variable
from worker.core.findings import BROKER_TIMEOUT_S
from worker.core.watch import BLOCKED_S, GIVE_UP_AFTER_S, NOT_CONSUMING_S, REBUILD_AFTER_S
from worker.loading import load_settings
from worker.watchdog import PERIOD_S

SECRET = {
    "ORDER_WORKER_AMQP_URL": "amqps://worker:secret@broker/",
    "ORDER_WORKER_ADMIN_TOKEN": "a-token-of-good-length",
    "ORDER_WORKER_CLIENT_ID": "client",
    "ORDER_WORKER_CLIENT_SECRET": "secret",
    "ORDER_WORKER_JOURNAL_URL": "postgresql://worker:secret@database/journal",
}
"""What people put into the Secret, see the runbook."""

ROOMS = with_worker()


def known() -> set[str]:
    """The variables that the program reads."""
    return {variable(name) for name in Settings.model_fields}


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a pod of this overlay comes to."""
    for key in [key for key in os.environ if key.startswith(PREFIX)]:
        monkeypatch.delenv(key)
    monkeypatch.chdir(K8S)  # no .env there
    given = SECRET | _own_secret(name) | settings_of(name)
    for key, value in given.items():
        if key != "ORDER_WORKER_SECRETS_DIR":  # of the pod, not of this machine
            monkeypatch.setenv(key, value)
    return load_settings()


def _own_secret(name: str) -> dict[str, str]:
    return next((dict(each["stringData"]) for each in rendered(name) if each["kind"] == "Secret"), {})


def worker(name: str) -> dict[str, Any]:
    """The worker's container."""
    [only] = containers(deployment(name))
    return only


def pod(name: str) -> dict[str, Any]:
    """The worker's pod."""
    return dict(deployment(name)["spec"]["template"]["spec"])


def probe_s(probe: dict[str, Any]) -> int:
    """How long a probe may fail before something happens."""
    return int(probe["periodSeconds"] * probe["failureThreshold"])


@pytest.mark.parametrize("name", ROOMS)
def test_every_variable_is_a_setting(name: str) -> None:
    """In the ConfigMap, and in a Secret where an overlay brings one: a misspelt one would be ignored."""
    given = settings_of(name).keys() | _own_secret(name).keys()

    assert given <= known()
    assert SECRET.keys() <= known()


@pytest.mark.parametrize("name", ROOMS)
def test_the_settings_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together with a Secret as the runbook describes it."""
    settings = loaded(name, monkeypatch)

    assert settings.missing_for_platform() == []
    assert settings.journal_url != "memory"


@pytest.mark.parametrize("name", ROOMS)
def test_only_secrets_are_in_the_secret(name: str) -> None:
    """And none of them is in the ConfigMap, which more people may read."""
    secret = {"ORDER_WORKER_AMQP_URL", "ORDER_WORKER_MANAGEMENT_URL", "ORDER_WORKER_ADMIN_TOKEN"} | {
        "ORDER_WORKER_CLIENT_SECRET"
    }
    assert not settings_of(name).keys() & secret
    assert "@" not in settings_of(name).get("ORDER_WORKER_JOURNAL_URL", "")


@pytest.mark.parametrize("name", ROOMS)
def test_the_pod_is_given_longer_than_the_drain(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DRAIN_GRACE_S, then closing: whoever is killed before leaves its messages to be delivered again."""
    assert pod(name)["terminationGracePeriodSeconds"] >= loaded(name, monkeypatch).drain_grace_s + 10


@pytest.mark.parametrize("name", ROOMS)
def test_ports_are_the_admin_port(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Container, probes, Service, NetworkPolicy and ServiceMonitor name the port that the worker listens on."""
    settings = loaded(name, monkeypatch)
    [port] = worker(name)["ports"]
    service = find(rendered(name), "Service", WORKER)["spec"]["ports"]

    assert (port["name"], port["containerPort"]) == ("admin", settings.admin_port)
    assert [(each["name"], each["port"], each["targetPort"]) for each in service] == [
        ("admin", settings.admin_port, "admin")
    ]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert worker(name)[probe]["httpGet"]["port"] == "admin"
    policy = find(rendered(name), "NetworkPolicy", WORKER)["spec"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["admin"]


@pytest.mark.parametrize("name", ROOMS)
def test_the_admin_interface_is_reached_from_outside_the_pod(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet and Prometheus are not in the pod, so loopback would not do."""
    assert loaded(name, monkeypatch).admin_host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def test_monitor_and_service_meet() -> None:
    """The ServiceMonitor selects the Service, by its labels, and names its port."""
    monitor = find(rendered("base"), "ServiceMonitor", WORKER)["spec"]
    service = find(rendered("base"), "Service", WORKER)

    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [each["port"] for each in monitor["endpoints"]] == [each["name"] for each in service["spec"]["ports"]]


@pytest.mark.parametrize("name", ROOMS)
def test_selectors_meet_the_pods(name: str) -> None:
    """Deployment, Service, disruption budget, policy and spread are about these pods."""
    labels = deployment(name)["spec"]["template"]["metadata"]["labels"]
    spread = [each["labelSelector"]["matchLabels"] for each in pod(name)["topologySpreadConstraints"]]
    selectors = [_selector(each) for each in rendered(name) if each["metadata"]["name"] == WORKER]

    for selector in filter(None, [*selectors, *spread]):
        assert selector.items() <= labels.items()


def _selector(resource: Resource) -> dict[str, str]:
    spec = resource.get("spec", {})
    match resource["kind"]:
        case "Service":
            return dict(spec["selector"])
        case "NetworkPolicy":
            return dict(spec["podSelector"]["matchLabels"])
        case "Deployment" | "PodDisruptionBudget":
            return dict(spec["selector"]["matchLabels"])
        case _:
            return {}


@pytest.mark.parametrize("name", ROOMS)
def test_probes_ask_what_needs_no_token(name: str) -> None:
    """The kubelet has none to send."""
    paths = {
        kind: worker(name)[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert set(paths.values()) <= OPEN_TO_ALL


@pytest.mark.parametrize("name", ROOMS)
def test_liveness_leaves_the_first_try_to_the_watchdog(name: str) -> None:
    """A blocked loop answers nothing: killed not before the watchdog would have rebuilt, nor much later than it gives
    up; and a loop that is late without being blocked answers in time."""
    probe = worker(name)["livenessProbe"]

    assert REBUILD_AFTER_S <= probe_s(probe) <= GIVE_UP_AFTER_S
    assert probe["timeoutSeconds"] >= BLOCKED_S
    assert probe["timeoutSeconds"] <= probe["periodSeconds"]


@pytest.mark.parametrize("name", ROOMS)
def test_readiness_tells_before_the_watchdog_acts(name: str) -> None:
    """What is not consuming shows as not ready well within the watchdog's patience, and not at each short blink."""
    probe = worker(name)["readinessProbe"]

    assert PERIOD_S < probe_s(probe) < NOT_CONSUMING_S
    assert probe["timeoutSeconds"] <= probe["periodSeconds"]


@pytest.mark.parametrize("name", ROOMS)
def test_the_start_is_given_time(name: str) -> None:
    """The interface answers before anything is connected, so a minute is plenty even on a busy node."""
    assert 30 <= probe_s(worker(name)["startupProbe"]) <= 120


def test_the_policy_lets_the_settings_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broker, journal, platform and names; in production nothing but https goes to the world."""
    loaded("overlays/production", monkeypatch)
    rules = find(rendered("overlays/production"), "NetworkPolicy", WORKER)["spec"]["egress"]
    ports = {port["port"] for rule in rules for port in rule["ports"]}

    assert ports == {53, 443, 5432, 5671, 5672}
    assert all("to" in rule for rule in rules if {53, 443} & {port["port"] for port in rule["ports"]})


def test_a_standby_is_there_and_elsewhere() -> None:
    """Two workers in production, on two nodes, and never both taken away at once."""
    spec = deployment("overlays/production")["spec"]
    spread = {
        each["topologyKey"]: each["whenUnsatisfiable"]
        for each in pod("overlays/production")["topologySpreadConstraints"]
    }

    assert spec["replicas"] == 2
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert spread["kubernetes.io/hostname"] == "DoNotSchedule"
    assert find(rendered("overlays/production"), "PodDisruptionBudget", WORKER)["spec"]["maxUnavailable"] == 1


def test_dev_has_one_worker_because_its_journal_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a volume that the container may write to."""
    settings = loaded("overlays/dev", monkeypatch)
    path = settings.journal_url.removeprefix("sqlite:///")

    assert deployment("overlays/dev")["spec"]["replicas"] == 1
    assert any(path.startswith(each["mountPath"] + "/") for each in worker("overlays/dev")["volumeMounts"])


def test_the_broker_waits_longer_for_acknowledgements_than_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """consumer_timeout of the cluster, in milliseconds, is the one that the settings are checked against."""
    config = find(rendered("overlays/rabbitmq-operator"), "RabbitmqCluster", "order-broker")["spec"]["rabbitmq"]
    found = re.search(r"^consumer_timeout = (\d+)$", config["additionalConfig"], re.MULTILINE)

    assert found is not None
    assert int(found[1]) == BROKER_TIMEOUT_S * 1000
    assert loaded("overlays/rabbitmq-operator", monkeypatch).max_unsettled_s * 2 <= BROKER_TIMEOUT_S
