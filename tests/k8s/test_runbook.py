"""RUNBOOK.md keeps its word: each alert has its section, commands are understood, names exist."""

import re
import shlex

import pytest

from tests.k8s.overlays import K8S, rendered
from tests.k8s.test_worker import SECRET
from tests.support.kustomize import find
from worker.cli import main
from worker.config import Settings, variable
from worker.core.model import Reason
from worker.core.outage import OutageKind
from worker.telemetry import EVENTS

TEXT = (K8S / "RUNBOOK.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```shell\n(.*?)^ *```$", TEXT, re.DOTALL | re.MULTILINE)
LINES = [line.strip() for block in BLOCKS for line in block.splitlines()]
PROSE = re.sub(r"^ *```shell\n.*?^ *```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)


def alerts() -> dict[str, dict[str, str]]:
    """The annotations of each alert."""
    groups = find(rendered("base"), "PrometheusRule", "order-worker")["spec"]["groups"]
    return {rule["alert"]: rule["annotations"] for group in groups for rule in group["rules"]}


def anchors() -> dict[str, str]:
    """The text of each heading by the anchor that it has in a browser."""
    heads = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-"): head for head in heads}


def commands() -> list[str]:
    """Every command line of the program, in blocks and in prose."""
    said = [line.partition("-- order-worker ")[2] for line in LINES if "-- order-worker " in line]
    return [each.partition(" #")[0] for each in said] + re.findall(r"`order-worker ([^`]+)`", PROSE)


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    """Whoever is called finds the page, and the page has nothing that never fires."""
    described = re.findall(r"^### (.+)$", TEXT.partition("\n## Alerts\n")[2].partition("\n## ")[0], re.MULTILINE)

    assert described == list(alerts())


@pytest.mark.parametrize("name", alerts())
def test_the_link_of_an_alert_leads_to_its_section(name: str) -> None:
    """By the anchor that the heading has."""
    path, _, anchor = alerts()[name]["runbook_url"].partition("#")

    assert (K8S.parent / path).read_text(encoding="utf-8") == TEXT
    assert anchors()[anchor] == name


@pytest.mark.parametrize("name", alerts())
def test_each_section_says_what_it_means_where_to_look_and_what_to_do(name: str) -> None:
    """In that order, because it is read at night."""
    section = TEXT.partition(f"\n### {name}\n")[2].partition("\n#")[0]

    assert re.findall(r"^\*\*(\w[\w ]+):\*\*", section, re.MULTILINE) == ["Means", "Look at", "Do"]


def test_links_inside_the_page_lead_somewhere() -> None:
    """To a heading that is there."""
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors().keys()


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_commands_and_their_options_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is understood as it stands; --help keeps it from doing anything."""
    assert main.run([*shlex.split(line), "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_enough_commands_are_found() -> None:
    """The pattern above still fits the page."""
    assert len(commands()) >= 20


def test_settings_that_are_named_exist() -> None:
    """With the prefix or without."""
    known = {variable(name) for name in Settings.model_fields}
    named = set(re.findall(r"ORDER_WORKER_[A-Z_]*[A-Z]", TEXT))
    short = {variable(name.lower()) for name in re.findall(r"`((?!ORDER_WORKER_)[A-Z]+_[A-Z_]+)`", TEXT)}

    assert named | short <= known


def test_the_secret_is_described_in_full() -> None:
    """All that the manifests expect in it."""
    [told] = re.findall(r"`secrets/` holds the files (.+?);", TEXT, re.DOTALL)

    assert set(re.findall(r"`(\w+)`", told)) == SECRET.keys()


def test_reasons_and_events_that_are_named_exist() -> None:
    """Reasons of dead letters, reasons of not being ready, log events."""
    section = TEXT.partition("\n### OrderWorkerDeadLetters\n")[2].partition("\n#")[0]
    table = re.findall(r"^\| (`.+?) \|", TEXT, re.MULTILINE)
    unready = {name for row in table for name in re.findall(r"`([a-z-]+)`", row)}
    events = set(re.findall(r"`([a-z]+\.[a-z_]+)`", PROSE))

    assert set(re.findall(r"`([a-z-]+)`", section)) - {"detail"} <= set(Reason)
    assert unready == set(OutageKind) | {"draining", "stalled", "not-connected", "not-consuming"}
    assert events <= EVENTS.keys()


@pytest.mark.parametrize("line", [line for line in LINES if " -k " in line or " -f k8s" in line])
def test_manifests_that_are_applied_exist(line: str) -> None:
    """Folders with a kustomization, or files."""
    path = K8S.parent / shlex.split(line)[-1]

    assert (path / "kustomization.yaml").is_file() or path.is_file()


def test_objects_that_are_named_exist() -> None:
    """Deployments, Job, Service and namespace, of the overlay production and what goes beside it."""
    everything = rendered("overlays/production") + rendered("journal") + rendered("console")
    there = {(each["kind"].lower(), each["metadata"]["name"]) for each in everything}
    named = {
        (kind, name) for line in LINES for kind, name in re.findall(r"\b(deployment|job|service)[/ ]([a-z-]+)", line)
    }
    named |= {("namespace", name) for line in LINES for name in re.findall(r" -n ([a-z-]+)", line)}

    assert {kind for kind, _ in named} == {"deployment", "job", "service", "namespace"}
    assert named <= there
