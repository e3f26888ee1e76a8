"""The console's manifests fit the console and the worker beside it: log-in, ports, times, files, who may reach whom."""

import os
from typing import Any

import pytest

from tests.k8s.overlays import K8S, WORKER, deployment, rendered, settings_of
from tests.k8s.test_worker import SECRET, known
from tests.support.kustomize import Resource, containers, find
from worker.config import PREFIX, Settings
from worker.console.access import ALIVE
from worker.console.app import SHUTDOWN_S
from worker.console.works import STOP_WITHIN_S
from worker.core.settings import Payloads
from worker.loading import load_settings

CONSOLE = "order-worker-console"


def pod() -> dict[str, Any]:
    """The console's pod."""
    return dict(find(rendered("console"), "Deployment", CONSOLE)["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    """Its only container."""
    [only] = containers(find(rendered("console"), "Deployment", CONSOLE))
    return only


def environment() -> dict[str, str]:
    """What the console's manifest adds to the worker's settings."""
    return {each["name"]: each["value"] for each in container()["env"]}


def policy(name: str) -> Resource:
    """What a network policy says."""
    return dict(find(rendered("console"), "NetworkPolicy", name)["spec"])


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those that the pod comes to, beside the worker of the overlay production."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(K8S)  # no .env there
    given = SECRET | settings_of("overlays/production") | environment()
    for name, value in given.items():
        if name != "ORDER_WORKER_SECRETS_DIR":  # of the pod, not of this machine
            monkeypatch.setenv(name, value)
    return load_settings()


def mounted(path: str) -> dict[str, Any]:
    """The volume in which a path of the container is; the innermost."""
    mounts = [each for each in container()["volumeMounts"] if path.startswith(each["mountPath"] + "/")]
    mount = max(mounts, key=lambda each: len(each["mountPath"]))
    [volume] = [each for each in pod()["volumes"] if each["name"] == mount["name"]]
    return {**volume, "readOnly": mount.get("readOnly", False)}


def test_people_log_in_with_tokens_from_a_secret_of_its_own(settings: Settings) -> None:
    """It is reached from outside the pod, so it would not start without; and the worker needs not know who."""
    volume = mounted(settings.console_tokens_file)

    assert settings.console_host == "0.0.0.0"  # noqa: S104 - compared, not bound
    assert volume["secret"]["secretName"] == CONSOLE
    assert volume["readOnly"]
    assert "subPath" not in str(container()["volumeMounts"])  # such a file would never change


def test_viewers_see_no_payloads(settings: Settings) -> None:
    """Said in the manifest, whatever the program's default."""
    assert environment()["ORDER_WORKER_PAYLOADS"] == "operator"
    assert settings.payloads is Payloads.OPERATOR


def test_every_variable_is_a_setting() -> None:
    """A misspelt one would be ignored."""
    assert environment().keys() <= known()


def test_nothing_that_is_discarded_goes_with_the_pod(settings: Settings) -> None:
    """What is discarded is written to a file first, and that is all that is left of it."""
    volume = mounted(settings.console_files)

    claim = find(rendered("console"), "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert not volume["readOnly"]


def test_there_is_one_and_it_goes_before_the_next_one_comes() -> None:
    """Sessions are in its memory, and the volume is mounted once."""
    spec = find(rendered("console"), "Deployment", CONSOLE)["spec"]

    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_pod_is_given_longer_than_what_is_under_way() -> None:
    """A replay is stopped in good order, not killed."""
    assert pod()["terminationGracePeriodSeconds"] >= STOP_WITHIN_S + SHUTDOWN_S + 10


def test_ports_are_the_one_it_listens_on(settings: Settings) -> None:
    """Container, probes, Service and policy; a port-forward of the Service is the address that people type."""
    [port] = container()["ports"]
    [service] = find(rendered("console"), "Service", CONSOLE)["spec"]["ports"]
    [rule] = policy(CONSOLE)["ingress"]

    assert (port["name"], port["containerPort"]) == ("console", settings.console_port)
    assert (service["port"], service["targetPort"]) == (settings.console_port, "console")
    assert settings.console_url == f"http://127.0.0.1:{service['port']}"
    assert [each["port"] for each in rule["ports"]] == ["console"]


def test_probes_ask_what_needs_no_log_in() -> None:
    """The kubelet has no token, and names the pod by its address."""
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container()[kind]["httpGet"] == {"path": ALIVE, "port": "console"}


def test_it_asks_the_workers_by_their_headless_service(settings: Settings) -> None:
    """Behind one address of a Service it would see another worker each time."""
    service = find(rendered("overlays/production"), "Service", WORKER)["spec"]
    [port] = service["ports"]

    assert settings.console_workers == (f"http://{WORKER}:{port['port']}",)
    assert service["clusterIP"] == "None"


def test_policies_lead_to_the_workers_and_to_nobody_outside() -> None:
    """Both ends: out of the console, and into the workers. No rule leads to the world."""
    labels = deployment("overlays/production")["spec"]["template"]["metadata"]["labels"]
    own = find(rendered("console"), "Deployment", CONSOLE)["spec"]["template"]["metadata"]["labels"]
    out = policy(CONSOLE)["egress"]
    [into] = policy("order-worker-from-console")["ingress"]

    assert policy("order-worker-from-console")["podSelector"]["matchLabels"].items() <= labels.items()
    assert [each["podSelector"]["matchLabels"] for each in into["from"]] == [own]
    assert {port["port"] for rule in out for port in rule["ports"]} == {53, 5432, 5671, 5672, 8080}
    assert not any("ipBlock" in str(rule) for rule in out)
    selectors = [policy(CONSOLE)["podSelector"], find(rendered("console"), "Deployment", CONSOLE)["spec"]["selector"]]
    assert all(each["matchLabels"] == own for each in selectors)
    assert find(rendered("console"), "Service", CONSOLE)["spec"]["selector"] == own
