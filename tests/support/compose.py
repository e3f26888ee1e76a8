"""docker/compose.yaml as Compose reads it: anchors merged, variables filled in."""

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from tests.support.image import ROOT

FOLDER: Final = ROOT / "docker"
FILE: Final = FOLDER / "compose.yaml"
OURS: Final = "order-update-worker"
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
