"""Docker Compose itself reads docker/compose.yaml as we do."""

import json
from typing import Any

import pytest

from tests.support.compose import compose, required, services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # at first a Debian with it is laid out

GIVEN = dict.fromkeys(required(), "given")


@pytest.fixture(scope="module")
def understood() -> dict[str, dict[str, Any]]:
    """The services as Compose understands them."""
    done = compose("config", "--format=json", values=GIVEN)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return found


def test_it_finds_the_services_that_our_tests_look_at(understood: dict[str, dict[str, Any]]) -> None:
    """Names, images, environments and commands: merging and variables mean the same to both."""
    ours = services(GIVEN)

    assert set(understood) == set(ours)
    for name, service in understood.items():
        assert service["image"] == ours[name]["image"]
        assert service.get("environment", {}) == ours[name].get("environment", {})
        assert service.get("command") == ours[name].get("command")
        assert service.get("entrypoint") == ours[name].get("entrypoint")


def test_ports_are_loopbacks_to_it(understood: dict[str, dict[str, Any]]) -> None:
    """Its own reading of the short form."""
    addresses = {port["host_ip"] for service in understood.values() for port in service.get("ports", [])}
    assert addresses == {"127.0.0.1"}


def test_limits_are_numbers_to_it(understood: dict[str, dict[str, Any]]) -> None:
    """Memory in bytes, above what a Python process with our libraries needs."""
    limits = [service["deploy"]["resources"]["limits"] for service in understood.values()]
    assert all(int(limit["memory"]) >= 256 * 1024**2 for limit in limits)


@pytest.mark.parametrize("name", sorted(required()))
def test_without_a_password_it_refuses(name: str) -> None:
    """It says which, and how to come by it; an empty one counts as missing."""
    done = compose("config", "--quiet", values=GIVEN | {name: ""})

    assert done.returncode != 0
    assert f"required variable {name} is missing a value: run make up, or set it" in done.stderr
