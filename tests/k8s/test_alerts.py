"""The alert rules: Prometheus takes them, they fire when they should, and every figure that they ask for exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.overlays import rendered
from tests.support.kustomize import find
from tests.support.promtool import groups, promtool, rules_file
from worker.adapters.admin import OPEN_TO_ALL
from worker.core.outage import OutageKind
from worker.metrics import METRICS

CASES = Path(__file__).with_name("alerts.test.yaml")
WANTED = {
    "order_worker_consuming": {},
    "order_worker_oldest_unsettled_age_seconds": {},
    "order_worker_queue_messages": {"queue": {"work"}, "state": {"ready"}},
    "order_worker_last_applied_timestamp_seconds": {},
    "order_worker_start_time_seconds": {},
    "order_worker_dead_letters_total": {"reason": set[str]()},
    "order_worker_storm_guard_tripped": {},
    "order_worker_paused": {"cause": {str(OutageKind.AUTH)}},
    "order_worker_call_budget": {},
    "order_worker_call_budget_left": {},
    "order_worker_journal_up": {},
}
"""What the rules ask for: metrics, their labels, and the values that are asked for by name."""
FROM_PROMETHEUS = {"namespace", "job", "pod"}


def rules() -> list[dict[str, Any]]:
    """All rules."""
    return [rule for group in groups() for rule in group["rules"]]


def test_the_manifest_has_the_rules_that_are_tested() -> None:
    """They are read from the file, and rendered with the rest."""
    assert find(rendered("overlays/production"), "PrometheusRule", "order-worker")["spec"]["groups"] == groups()


@pytest.mark.timeout(300)  # where promtool is missing it is installed
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    """`promtool check rules`, with its doubts as errors."""
    (tmp_path / "rules.yaml").write_text(rules_file())

    done = promtool("check", "rules", "--lint-fatal", "rules.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300)
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    """`promtool test rules`."""
    (tmp_path / "rules.yaml").write_text(rules_file())
    (tmp_path / CASES.name).write_text(CASES.read_text(encoding="utf-8"))

    done = promtool("test", "rules", CASES.name, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_both_ways() -> None:
    """There is a case where it fires, and one where it does not."""
    cases = [each for test in yaml.safe_load(CASES.read_text())["tests"] for each in test["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}

    assert {each["alertname"] for each in cases if each["exp_alerts"]} == names
    assert {each["alertname"] for each in cases if not each["exp_alerts"]} == names


def test_alerts_tell_how_bad_it_is_and_what_to_read() -> None:
    """Severity for the routing, and words for people."""
    assert {rule["labels"]["severity"] for rule in rules()} == {"critical", "warning"}
    assert all(rule["annotations"].keys() == {"summary", "description", "runbook_url"} for rule in rules())


def test_rules_ask_for_figures_that_are_wanted() -> None:
    """And for nothing else: a misspelt metric is never there, and its alert never fires."""
    text = " ".join(rule["expr"] for rule in rules())
    given = re.findall(r'(\w+)="([^"]+)"', text)
    by = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", text) for label in labels.split(",")}

    assert set(re.findall(r"order_worker_\w+", text)) == WANTED.keys()
    assert set(given) == {(label, value) for labels in WANTED.values() for label in labels for value in labels[label]}
    assert by - FROM_PROMETHEUS == {"reason"}


def test_the_worker_has_the_figures_that_are_wanted() -> None:
    """The table of metrics has each of them, with these labels and values; Prometheus needs no token for them."""
    assert "/metrics" in OPEN_TO_ALL
    for name, labels in WANTED.items():
        assert set(METRICS[name].labels) == labels.keys(), name
        assert all(values <= set(METRICS[name].values_of(label)) for label, values in labels.items()), name


def test_compose_has_the_same_rules() -> None:
    """As the plain file that a Prometheus without its operator reads; `make docs` writes it."""
    assert (Path(__file__).parents[2] / "docker/prometheus/rules/order-worker.yaml").read_text() == rules_file()
