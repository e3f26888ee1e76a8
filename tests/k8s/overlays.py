"""What ``k8s/`` renders to, and where in it to find what the tests ask about."""

from functools import cache
from pathlib import Path
from typing import Final

from tests.support.kustomize import Resource, containers, find, render

K8S: Final = Path(__file__).parents[2] / "k8s"
BESIDE: Final = ("journal", "console")
"""What is applied beside the worker, and does not bring it."""
NAMES: Final = ("base", *BESIDE, *(f"overlays/{name}" for name in ("dev", "production", "keda", "rabbitmq-operator")))
WORKER: Final = "order-worker"


@cache
def rendered(name: str) -> list[Resource]:
    """The resources of a kustomization; for looking at, not for changing."""
    return render(K8S / name)


def with_worker() -> list[str]:
    """The kustomizations that run the worker."""
    return [name for name in NAMES if name not in BESIDE]


def deployment(name: str) -> Resource:
    """The worker of a kustomization."""
    return find(rendered(name), "Deployment", WORKER)


def pods(name: str) -> list[Resource]:
    """The pod template of every workload."""
    return [each["spec"]["template"] for each in rendered(name) if any(containers(each))]


def settings_of(name: str) -> dict[str, str]:
    """The worker's environment, from its ConfigMap."""
    return dict(find(rendered(name), "ConfigMap", WORKER)["data"])
