"""What the containers may do, what they start, and what they find: of every workload, ours or not."""

import re
import shlex

import pytest

from tests.k8s.overlays import BESIDE, NAMES, WORKER, pods, rendered, settings_of
from tests.support.kustomize import containers
from worker.cli import main
from worker.config import PREFIX


@pytest.mark.parametrize("name", NAMES)
def test_pods_are_of_the_restricted_profile(name: str) -> None:
    """Pod Security Standards: no root, no privileges, no capabilities, the runtime's seccomp; and no API token."""
    for template in pods(name):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in spec["containers"]:
            allowed = container["securityContext"]
            assert (allowed["allowPrivilegeEscalation"], allowed["capabilities"]) == (False, {"drop": ["ALL"]})


@pytest.mark.parametrize("name", NAMES)
def test_our_containers_cannot_write_to_their_image(name: str) -> None:
    """Only to the volumes that are given to them."""
    ours = [
        each for resource in rendered(name) for each in containers(resource) if "order-update-worker" in each["image"]
    ]

    assert ours
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in ours)
    assert all(re.fullmatch(r"order-update-worker:[0-9.]+", each["image"]) for each in ours)


@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_sets_no_variables_of_ours(name: str) -> None:
    """It names one after each Service: for a Service called order-worker-admin, ADMIN_PORT would be tcp://..."""
    assert all(template["spec"]["enableServiceLinks"] is False for template in pods(name))
    assert WORKER.upper().replace("-", "_") + "_" == PREFIX


@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_files_where_the_worker_looks(name: str) -> None:
    """And not variables, which every child process and every dump has."""
    folder = settings_of("base")["ORDER_WORKER_SECRETS_DIR"]
    for resource in rendered(name):
        for container in [each for each in containers(resource) if "envFrom" in each]:
            mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            volumes = {each["name"]: each for each in resource["spec"]["template"]["spec"]["volumes"]}
            assert volumes[mounted[folder]]["secret"]["secretName"] == WORKER
            assert container["envFrom"] == [{"configMapRef": {"name": WORKER}}]


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What containers start is understood by the program, with its options."""
    for command in [each["command"] for r in rendered(name) for each in containers(r) if "command" in each]:
        assert command[0] == main.PROGRAM
        assert main.run([*command[1:], "--help"]) == 0, shlex.join(command)
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["base", *BESIDE])
def test_people_can_write_where_commands_start(name: str) -> None:
    """Exports and what is discarded go to files in the working directory, unless somebody names another one."""
    for container in [each for resource in rendered(name) for each in containers(resource)]:
        [volume] = [each for each in container["volumeMounts"] if each["mountPath"] == container["workingDir"]]
        assert not volume.get("readOnly")
