"""A renderer for the part of kustomize that ``k8s/`` uses, so that its tests need no program that is not Python's.

It knows ``resources``, ``patches`` (strategic merge and JSON 6902), ``images``, ``labels`` and ``namespace``, and
refuses every other field and every patch that it would have to guess. ``kubectl kustomize`` renders the same: a test
compares.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

Resource = dict[str, Any]

_FIELDS: Final = {"apiVersion", "kind", "namespace", "resources", "patches", "images", "labels"}
_MERGE_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
}
"""Lists that a strategic merge patch adds to; all others it replaces (x-kubernetes-patch-merge-key in the OpenAPI
document of Kubernetes)."""
_ATOMIC: Final = {"NetworkPolicy", "ConfigMap", "Secret", "Service", "PodDisruptionBudget", "ServiceAccount"}
_WORKLOADS: Final = {"Deployment", "StatefulSet", "Job"}


class NotRendered(Exception):
    """Something in a kustomization that this renderer does not know, or that does not fit."""


def render(folder: Path) -> list[Resource]:
    """All resources of the kustomization in ``folder``, its bases included. Raises NotRendered."""
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    if unknown := set(plan) - _FIELDS:
        raise NotRendered(f"{folder}: the renderer does not know {', '.join(sorted(unknown))}")
    resources = [each for name in plan.get("resources", []) for each in _read(folder / name)]
    for patch in plan.get("patches", []):
        resources = _patched(resources, folder, patch)
    for image in plan.get("images", []):
        _set_image(resources, image)
    for entry in plan.get("labels", []):
        _label(resources, entry)
    if namespace := plan.get("namespace"):
        _move(resources, namespace)
    _refuse_twice(resources, folder)
    return resources


def documents(path: Path) -> list[Resource]:
    """What a YAML file holds, empty documents left out."""
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def key(resource: Resource) -> tuple[str, str, str]:
    """What tells a resource from the others of a kustomization."""
    return resource["apiVersion"], resource["kind"], resource["metadata"]["name"]


def _read(path: Path) -> list[Resource]:
    if path.is_dir():
        return render(path)
    return documents(path)


def _patched(resources: list[Resource], folder: Path, patch: dict[str, Any]) -> list[Resource]:
    _only(patch, {"path", "patch", "target"})
    text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text(encoding="utf-8")
    change = yaml.safe_load(text)
    if isinstance(change, list):
        target = patch.get("target", {})
        _only(target, {"kind", "name"})
        found = [each for each in resources if _fits(each, target)]
        for each in found:
            _json_patch(each, change)
    else:
        if "target" in patch:
            raise NotRendered("a strategic merge patch names its target itself")
        found = [each for each in resources if key(each) == key(change)]
        for each in found:
            _merge(each, change, kind=each["kind"])
    if not found:
        raise NotRendered(f"{folder}: a patch fits no resource: {text[:200]!r}")
    return [each for each in resources if each.get("$patch") != "delete"]


def _fits(resource: Resource, target: dict[str, str]) -> bool:
    return bool(resource["kind"] == target["kind"] and resource["metadata"]["name"] == target["name"])


def _only(given: dict[str, Any], known: set[str]) -> None:
    if unknown := set(given) - known:
        raise NotRendered(f"the renderer does not know {', '.join(sorted(unknown))} in {given}")


def _merge(into: dict[str, Any], change: dict[str, Any], *, kind: str) -> None:
    for name, value in change.items():
        here = into.get(name)
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict) and isinstance(here, dict):
            _merge(here, value, kind=kind)
        elif isinstance(value, list) and isinstance(here, list):
            into[name] = _merged_list(name, here, value, kind=kind)
        else:
            into[name] = copy.deepcopy(value)


def _merged_list(name: str, here: list[Any], change: list[Any], *, kind: str) -> list[Any]:
    by = _MERGE_KEYS.get(name) if kind in _WORKLOADS else None
    if by is None:
        if kind not in _ATOMIC:
            raise NotRendered(f"whether {name} of {kind} is merged or replaced is not known here")
        return copy.deepcopy(change)
    result, new = list(here), []
    for item in change:
        twin = next((each for each in result if each[by] == item[by]), None)
        if twin is None:
            new.append(copy.deepcopy(item))
        else:
            _merge(twin, item, kind=kind)
    return new + result  # kustomize puts what a patch adds in front


def _json_patch(resource: Resource, operations: list[dict[str, Any]]) -> None:
    for operation in operations:
        holder, last = _place(resource, operation["path"])
        match operation["op"]:
            case "test":
                if holder[last] != operation["value"]:
                    raise NotRendered(f"{operation['path']} is {holder[last]!r}, not {operation['value']!r}")
            case "replace":
                _ = holder[last]
                holder[last] = copy.deepcopy(operation["value"])
            case "remove":
                del holder[last]
            case other:
                raise NotRendered(f"the renderer does not know the operation {other!r}")


def _place(resource: Resource, pointer: str) -> tuple[Any, Any]:
    """Where a JSON pointer leads: what holds the value, and its name or index there."""
    holder: Any = resource
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    for step in steps[:-1]:
        holder = holder[int(step)] if isinstance(holder, list) else holder[step]
    return holder, int(steps[-1]) if isinstance(holder, list) else steps[-1]


def containers(resource: Resource) -> Iterator[dict[str, Any]]:
    """All containers of a workload."""
    if resource["kind"] in _WORKLOADS:
        pod = resource["spec"]["template"]["spec"]
        yield from (*pod.get("initContainers", []), *pod["containers"])


def _set_image(resources: list[Resource], image: dict[str, str]) -> None:
    _only(image, {"name", "newName", "newTag"})
    for container in (container for each in resources for container in containers(each)):
        name, _, tag = container["image"].partition(":")
        if name == image["name"]:
            container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"


def _label(resources: list[Resource], entry: dict[str, Any]) -> None:
    _only(entry, {"pairs"})  # selectors and templates are left alone
    for each in resources:
        each["metadata"].setdefault("labels", {}).update(entry["pairs"])


def _move(resources: list[Resource], namespace: str) -> None:
    for each in resources:
        if each["kind"] != "Namespace":
            each["metadata"]["namespace"] = namespace


def _refuse_twice(resources: list[Resource], folder: Path) -> None:
    keys = [key(each) for each in resources]
    if len(set(keys)) < len(keys):
        raise NotRendered(f"{folder}: a resource is there twice")


def find(resources: list[Resource], kind: str, name: str) -> Resource:
    """The only one of this kind and name."""
    [found] = [each for each in resources if _fits(each, {"kind": kind, "name": name})]
    return found
