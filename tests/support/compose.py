"""docker/compose.yaml as Compose reads it: anchors merged, variables filled in."""

import re
import subprocess
from collections.abc import Mapping
from typing import Any, Final

import yaml

from tests.support.debiantree import DebianTree
from tests.support.image import ROOT

FOLDER: Final = ROOT / "docker"
FILE: Final = FOLDER / "compose.yaml"
OURS: Final = "order-update-worker"
_ENTER: Final = """set -e
tree=$1 files=$2
shift 2
mount --bind "$files" "$tree/mnt"
mount -o remount,bind,ro "$tree/mnt"
mount --rbind /dev "$tree/dev"
exec chroot "$tree" "$@"
"""
_VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<rest>[^}]*))?\}")


def composed(values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The whole file. Variables without a value become their default, or their own name where they have none."""
    found = yaml.safe_load(_filled(FILE.read_text(encoding="utf-8"), values or {}))
    assert isinstance(found, dict)
    return found


def services(values: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Its services by name."""
    found: dict[str, dict[str, Any]] = composed(values)["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services that run our own image."""
    return {name: service for name, service in services().items() if service["image"].startswith(f"{OURS}:")}


def required() -> set[str]:
    """The variables without which Compose refuses to start."""
    text = FILE.read_text(encoding="utf-8")
    return {found["name"] for found in _VARIABLE.finditer(text) if found["how"] == ":?"}


def _filled(text: str, values: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        default = found["rest"] if found["how"] == ":-" else found["name"]
        return values.get(found["name"], default)

    return _VARIABLE.sub(value, text)


def compose(*arguments: str, values: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run Docker Compose on the file, as far as it goes without an engine.

    This machine's release may have none or the old one in Python; that of Debian 13 is laid out beside it.
    """
    tree = DebianTree(suite="trixie", include=("ca-certificates", "docker-compose")).ensure()
    inside = f"/mnt/{FILE.relative_to(ROOT)}"
    program = ["env", "-i", "PATH=/usr/bin:/bin", *(f"{name}={value}" for name, value in values.items())]
    # Not the docker/.env of whoever works here.
    program += ["docker-compose", "--env-file=/dev/null", f"--file={inside}", *arguments]
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(tree), str(ROOT), *program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
