"""The dashboard as a file: it asks for figures that exist, in PromQL that Prometheus takes, and says what they mean."""

import json
import re
from collections.abc import Mapping
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import yaml

from tests.k8s.test_runbook import anchors
from tests.support.dashboard import DASHBOARD, Panel, Query, board, panels, queries
from tests.support.promtool import ALERTS, groups, promtool
from tests.support.readme import README
from worker.metrics import METRICS, Kind

ROWS = ["Is it working?", "Is it keeping up?", "What fails, and why?", "What does the platform do?"]
"""The questions, in the order in which they are asked at night."""
TYPES = {"stat", "timeseries", "table"}
UNITS = {"none", "short", "s", "percentunit", "eps", "ops", "reqps"}
WIDTH = 24
FILTERS = 'namespace=~"$namespace", job=~"$job"'
FROM_PROMETHEUS = {"namespace", "job", "instance"}
VALUES = {"namespace": "orders", "job": "order-worker", "__rate_interval": "1m", "__range": "3h"}
"""Grafana's variables, with values that it may give them."""
SAME_EVERYWHERE = {"order_worker_queue_messages", "order_worker_start_time_seconds", "order_worker_call_budget"}
"""Every worker reports the same, or a sum of them means nothing."""
SELECTOR = re.compile(r"(?P<before>\w*\(?)\b(?P<name>order_worker_\w+)\{(?P<labels>[^}]*)\}(?P<window>\[\$\w+\])?")


def case(query: Query) -> str:
    """The name of a test."""
    return f"{query.panel}-{query.letter}"


def selectors(expression: str) -> list[re.Match[str]]:
    """Every metric that is asked for, with its labels and what stands in front of it."""
    return list(SELECTOR.finditer(expression))


def family(name: str) -> str:
    """The metric whose samples have this name; a histogram has three names."""
    return name if name in METRICS else re.sub(r"_(bucket|sum|count)$", "", name)


def labels_of(name: str) -> set[str]:
    """The labels that samples of this name have, those of Prometheus included."""
    return {*METRICS[family(name)].labels, *FROM_PROMETHEUS} | ({"le"} if name.endswith("_bucket") else set())


def apart(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Whether these places of the grid have nothing in common."""
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    return beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_the_rows_are_the_questions_in_their_order() -> None:
    """Each has panels, and none of them is folded away."""
    kinds = [each["type"] for each in board()["panels"]]
    rows = [each for each in board()["panels"] if each["type"] == "row"]

    assert [row["title"] for row in rows] == ROWS
    assert not any(row["collapsed"] or row["panels"] for row in rows)
    assert kinds[0] == "row"
    assert "row" not in (kinds[-1], *[kind for kind, after in pairwise(kinds) if kind == after])


def test_it_is_one_dashboard_wherever_it_is_loaded() -> None:
    """A name that stays, no number of somebody's database, a version, and no more load than needed."""
    it = board()

    assert (it["uid"], it["title"], it["version"], it.get("id")) == ("order-worker", "order-worker", 1, None)
    assert it["schemaVersion"] >= 41
    assert it["refresh"] in {"30s", "1m"}
    assert it["time"] == {"from": "now-3h", "to": "now"}


def test_it_names_no_address_and_no_data_source() -> None:
    """Both are variables, so that it works in anybody's Grafana."""
    sources = [each["datasource"] for panel in panels() for each in (panel, *panel["targets"])]
    variables = {each["name"]: each for each in board()["templating"]["list"]}

    assert "://" not in DASHBOARD.read_text(encoding="utf-8")
    assert {json.dumps(each) for each in sources} == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert list(variables) == ["datasource", "namespace", "job", "runbook"]
    assert variables["datasource"]["query"] == "prometheus"
    assert [variables[name]["allValue"] for name in ("namespace", "job")] == [".*", ".*"]


def test_panels_do_not_overlap() -> None:
    """Grafana would move them, and the order would no longer be that of the questions."""
    places = [each["gridPos"] for each in board()["panels"]]

    assert all(place["x"] + place["w"] <= WIDTH for place in places)
    assert all(apart(one, other) for one, other in combinations(places, 2))
    assert places == sorted(places, key=lambda place: (place["y"], place["x"]))


def test_titles_and_numbers_are_each_given_once() -> None:
    """Links and tests name panels by them."""
    numbers, titles = [[each[key] for each in board()["panels"]] for key in ("id", "title")]

    assert len(set(numbers)) == len(set(titles)) == len(numbers)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_means_and_what_is_normal(panel: Panel) -> None:
    """With a unit and thresholds; a figure that is missing has words where it would read as zero."""
    defaults = panel["fieldConfig"]["defaults"]

    assert panel["type"] in TYPES
    assert re.search(r"[a-z)]\.( |$)", panel["description"])
    assert "Normal: " in panel["description"] or defaults["thresholds"]["steps"] == [{"color": "text", "value": None}]
    assert defaults["unit"] in UNITS
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert ("noValue" in defaults) == (panel["type"] != "timeseries")


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_links_lead_into_the_runbook(panel: Panel) -> None:
    """To a section that is there; where that is read is a variable."""
    urls = [link["url"] for link in panel["links"]]

    assert all(url.startswith("${runbook}#") for url in urls)
    assert {url.partition("#")[2] for url in urls} <= anchors().keys()


def test_each_alert_is_linked_from_a_panel() -> None:
    """Whoever sees the cause finds the page."""
    linked = {link["url"].partition("#")[2] for panel in panels() for link in panel["links"]}

    assert {rule["alert"].lower() for group in groups() for rule in group["rules"]} <= linked


def test_it_shows_every_metric_of_the_worker() -> None:
    """What is counted and never looked at could be left out."""
    shown = {family(match["name"]) for query in queries() for match in selectors(query.expression)}

    assert shown == METRICS.keys()


@pytest.mark.parametrize("query", queries(), ids=case)
def test_a_query_asks_for_what_exists(query: Query) -> None:
    """Metrics of the table, with their labels and values, and with the filters of the variables."""
    found = selectors(query.expression)
    grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", query.expression) for name in names.split(",")}

    assert len(found) == len(re.findall(r"order_worker_", query.expression))
    for match in found:
        own = match["labels"].removesuffix(FILTERS).removesuffix(", ")
        given = re.findall(r'(\w+)="([^"]+)"', own)
        assert match["labels"].endswith(FILTERS)
        assert own == ", ".join(f'{label}="{value}"' for label, value in given)
        assert all(value in METRICS[family(match["name"])].values_of(label) for label, value in given)
    known = set[str]().union(*(labels_of(match["name"]) for match in found))
    assert not found or grouped <= known


@pytest.mark.parametrize("query", queries(), ids=case)
def test_a_query_takes_a_metric_as_what_it_is(query: Query) -> None:
    """Counters by their rise, gauges as they stand; what every worker reports alike is not added up."""
    for match in selectors(query.expression):
        kind = METRICS[family(match["name"])].kind
        rises = match["before"] in ("rate(", "increase(")
        assert rises == (kind in (Kind.COUNTER, Kind.HISTOGRAM)) == (match["window"] is not None), match[0]
    for summed in re.findall(r"sum(?: by \([^)]*\))? \(?(order_worker_\w+)|sum\((order_worker_\w+)", query.expression):
        assert not set(summed) & SAME_EVERYWHERE


def test_metrics_are_recognised_as_what_they_are() -> None:
    """The pattern finds each of them in the shapes that queries have."""
    text = f"sum by (le) (rate(order_worker_x_bucket{{{FILTERS}}}[$__range])) / max(order_worker_y{{{FILTERS}}})"

    assert [(each["before"], each["name"], each["window"]) for each in selectors(text)] == [
        ("rate(", "order_worker_x_bucket", "[$__range]"),
        ("max(", "order_worker_y", None),
    ]


def test_the_readme_says_where_both_are() -> None:
    """By paths that exist."""
    section = README.read_text(encoding="utf-8").partition("\n## Metrics and alerts\n")[2].partition("\n## ")[0]

    for path in (DASHBOARD, ALERTS):
        assert path.is_file()
        assert f"`{path.relative_to(README.parent)}`" in section


@pytest.mark.timeout(300)  # where promtool is missing it is installed
def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    """`promtool check rules`, of rules made from them."""
    rules = [
        {"record": f"panel:{number}", "expr": query.filled(VALUES), "labels": {"panel": str(query)}}
        for number, query in enumerate(queries())
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    done = promtool("check", "rules", "rules.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries())} rules found" in done.stdout
