"""The renderer of the tests does what kustomize does, and refuses what it does not know."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.overlays import K8S, NAMES, rendered
from tests.support.debiantree import DebianTree
from tests.support.kustomize import NotRendered, Resource, key, render

PLAN = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["one.yaml"]}


def laid_out(folder: Path, resource: Resource, **plan: object) -> Path:
    """A kustomization of one resource."""
    (folder / "one.yaml").write_text(yaml.safe_dump(resource))
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(PLAN | plan))
    return folder


def service(name: str = "one") -> Resource:
    """A resource with a list."""
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 1}]}}


def workload() -> Resource:
    """A resource with lists that are merged."""
    container = {"name": "a", "image": "app:1", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}
    spec = {"replicas": 2, "template": {"spec": {"containers": [container]}}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one"}, "spec": spec}


def change(resource: Resource, **spec: object) -> dict[str, str]:
    """A strategic merge patch of this resource."""
    return {"patch": yaml.safe_dump({**resource, "spec": spec})}


def test_containers_are_merged_by_their_names(tmp_path: Path) -> None:
    """And mounts by their paths; what a patch adds comes first, as with kustomize."""
    container = {"name": "a", "volumeMounts": [{"name": "y", "mountPath": "/y"}]}
    patch = change(workload(), template={"spec": {"containers": [container]}})

    [result] = render(laid_out(tmp_path, workload(), patches=[patch]))
    [merged] = result["spec"]["template"]["spec"]["containers"]
    assert merged["image"] == "app:1"
    assert [each["mountPath"] for each in merged["volumeMounts"]] == ["/y", "/x"]


def test_null_takes_a_field_away(tmp_path: Path) -> None:
    """As in every merge patch."""
    [result] = render(laid_out(tmp_path, workload(), patches=[change(workload(), replicas=None)]))

    assert "replicas" not in result["spec"]


def test_other_lists_are_replaced(tmp_path: Path) -> None:
    """A policy's rules, for one, have nothing to merge them by."""
    [result] = render(laid_out(tmp_path, service(), patches=[change(service(), ports=[{"port": 2}])]))

    assert result["spec"]["ports"] == [{"port": 2}]


def test_images_labels_and_namespace_reach_everything(tmp_path: Path) -> None:
    """Selectors and templates keep their labels, or running Deployments could not be changed."""
    plan = {"images": [{"name": "app", "newName": "there/app", "newTag": "2"}], "labels": [{"pairs": {"of": "it"}}]}

    [result] = render(laid_out(tmp_path, workload(), namespace="here", **plan))
    assert result["metadata"] == {"name": "one", "namespace": "here", "labels": {"of": "it"}}
    template = result["spec"]["template"]
    assert template == {
        "spec": {"containers": [workload()["spec"]["template"]["spec"]["containers"][0] | {"image": "there/app:2"}]}
    }


REFUSED = {
    "a field of the plan": {"namePrefix": "x-"},
    "a field of labels": {"labels": [{"pairs": {}, "includeSelectors": True}]},
    "a field of images": {"images": [{"name": "app", "digest": "sha256:0"}]},
    "a field of a patch": {"patches": [{"path": "one.yaml", "options": {}}]},
    "a field of a target": {"patches": [{"patch": "[]", "target": {"kind": "Service", "labelSelector": "a=b"}}]},
    "an operation": {
        "patches": [
            {"patch": '[{"op": "add", "path": "/x", "value": 1}]', "target": {"kind": "Service", "name": "one"}}
        ]
    },
    "a patch without a resource": {"patches": [change(service("two"), ports=[])]},
    "a list of unknown merging": {"patches": [change({**service(), "kind": "Widget"}, ports=[])]},
    "a resource that is there twice": {"resources": ["one.yaml", "one.yaml"]},
}


@pytest.mark.parametrize("plan", REFUSED.values(), ids=REFUSED)
def test_what_the_renderer_does_not_know_is_refused(plan: dict[str, object], tmp_path: Path) -> None:
    """Instead of left out, which would let the tests look at something else than what is applied."""
    resource = service() | ({"kind": "Widget"} if "Widget" in str(plan) else {})
    with pytest.raises(NotRendered):
        render(laid_out(tmp_path, resource, **plan))


def test_a_test_of_a_patch_is_heeded(tmp_path: Path) -> None:
    """It keeps a patch by index from hitting its neighbour."""
    operations = [{"op": "test", "path": "/spec/ports/0/port", "value": 2}, {"op": "remove", "path": "/spec/ports/0"}]
    patch = {"patch": yaml.safe_dump(operations), "target": {"kind": "Service", "name": "one"}}

    with pytest.raises(NotRendered, match="is 1, not 2"):
        render(laid_out(tmp_path, service(), patches=[patch]))


def kubectl() -> list[str]:
    """kubectl with kustomize 5: this machine's, else Debian 13's. Raises Unavailable, which says what is needed."""
    if found := shutil.which("kubectl"):
        version = subprocess.run(
            [found, "version", "--client"], capture_output=True, text=True, timeout=30, check=False
        )
        if "Kustomize Version: v5" in version.stdout:
            return [found]
    root = DebianTree(suite="trixie", include=("kubernetes-client",)).ensure()
    [loader] = root.glob("lib*/ld-linux*.so.*")
    libraries = ":".join(str(path) for path in root.glob("usr/lib/*-linux-gnu*"))
    return [str(loader), "--library-path", libraries, str(root / "usr/bin/kubectl")]


@pytest.mark.slow
@pytest.mark.timeout(1000)  # the first time its package is fetched
def test_kustomize_renders_the_same() -> None:
    """Every kustomization, resource by resource."""
    program = kubectl()
    for name in NAMES:
        done = subprocess.run(
            [*program, "kustomize", str(K8S / name)], capture_output=True, text=True, timeout=60, check=True
        )
        theirs = {key(each): each for each in yaml.safe_load_all(done.stdout)}
        assert theirs == {key(each): each for each in rendered(name)}, name
