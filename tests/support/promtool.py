"""Prometheus' own judgement of our alert rules, and the rules as the plain file that Prometheus itself reads.

``python -m tests.support.promtool > rules.yaml`` writes that file, for a Prometheus without its operator.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from worker.adapters.aptpackage import install

ALERTS = Path(__file__).parents[2] / "k8s/base/alerts.yaml"
DEADLINE_S = 60.0


def groups() -> list[dict[str, Any]]:
    """The groups of rules that the PrometheusRule of the manifests holds."""
    rule = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return list(rule["spec"]["groups"])


def rules_file() -> str:
    """They alone, as Prometheus' ``rule_files`` are."""
    return yaml.safe_dump({"groups": groups()}, sort_keys=False, width=1000)


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run it in ``folder``; installed first where it is missing. UsageError says what to do if that does not work."""
    if shutil.which("promtool") is None:
        install("prometheus", otherwise="install Debian's package prometheus, which has promtool")
    return subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


if __name__ == "__main__":
    sys.stdout.write(rules_file())
