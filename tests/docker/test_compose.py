"""docker/compose.yaml starts what the worker's settings say, publishes on loopback only, and knows no secret."""

import inspect
import os
import re
import shutil
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from tests.support import compose
from tests.support.compose import FILE, FOLDER, ours, required, services
from tests.support.image import ROOT
from worker.adapters.aptpackage import install
from worker.cli import main
from worker.cli.simulate import simulate
from worker.config import PREFIX, Settings, variable
from worker.console.people import People

DEFAULTS = Settings(_env_file=None)  # type: ignore[call-arg]
PLATFORM_PORTS = {str(inspect.signature(simulate).parameters[name].default) for name in ("port", "sim_port")}
NAMES = tuple(services())


def environment(service: dict[str, Any]) -> dict[str, str]:
    """Its variables."""
    return dict(service.get("environment", {}))


def test_it_is_a_compose_file() -> None:
    """It is valid by the schema of the Compose specification."""
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_no_mapping_has_a_key_twice() -> None:
    """PyYAML takes the last one silently, Compose refuses the file; `<<` counts as well."""

    def look(node: yaml.Node | None) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"twice at line {node.start_mark.line + 1}: {sorted(keys)}"
            for _, value in node.value:
                look(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                look(value)

    for path in FOLDER.rglob("*.y*ml"):
        look(yaml.compose(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_of_ours_is_a_setting(name: str) -> None:
    """A variable that nothing reads would be a misspelt one."""
    known = {variable(field) for field in Settings.model_fields}

    assert {name for name in environment(services()[name]) if name.startswith(PREFIX)} <= known


@pytest.mark.parametrize("name", tuple(ours()))
def test_settings_of_each_service_are_accepted(name: str) -> None:
    """Values on their own and together."""
    given = {key.removeprefix(PREFIX).lower(): value for key, value in environment(ours()[name]).items()}

    Settings(_env_file=None, **given)  # type: ignore[call-arg,arg-type]


@pytest.mark.parametrize("name", [name for name, service in ours().items() if "entrypoint" not in service])
def test_commands_exist_with_their_options(name: str) -> None:
    """Each command line is understood as it stands; --help keeps it from doing anything."""
    done = CliRunner().invoke(main.app, [*ours()[name].get("command", ["run"]), "--help"])
    assert done.exit_code == 0, done.output


def test_services_are_found_where_they_listen() -> None:
    """Host names are services, ports are those of the settings and of the stand-in."""
    settings = environment(services()["worker"])
    urls = {name: urlsplit(settings[f"{PREFIX}{name}_URL"]) for name in ("AMQP", "JOURNAL", "OAUTH", "GRAPHQL")}

    assert {name: url.hostname for name, url in urls.items()} == {
        "AMQP": "rabbitmq",
        "JOURNAL": "postgres",
        "OAUTH": "platform",
        "GRAPHQL": "platform",
    }
    assert {str(urls[name].port) for name in ("OAUTH", "GRAPHQL")} <= PLATFORM_PORTS
    assert urls["AMQP"].port == urlsplit(DEFAULTS.amqp_url[0]).port
    assert settings[f"{PREFIX}ADMIN_PORT"] == str(DEFAULTS.admin_port)
    assert set(services()) >= {url.hostname for url in urls.values()}


def test_credentials_agree_with_those_of_the_servers() -> None:
    """User, password and database of each address are what the server is told to make."""
    found = services({name: f"secret-{name}" for name in required()})
    worker = environment(found["worker"])
    broker, journal = (urlsplit(worker[f"{PREFIX}{name}_URL"]) for name in ("AMQP", "JOURNAL"))
    rabbitmq, postgres = environment(found["rabbitmq"]), environment(found["postgres"])
    options = dict(option.removeprefix("--").split("=", 1) for option in found["platform"]["command"][1:])

    assert (broker.username, broker.password) == (rabbitmq["RABBITMQ_DEFAULT_USER"], rabbitmq["RABBITMQ_DEFAULT_PASS"])
    assert (journal.username, journal.password) == (postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"])
    assert journal.path == f"/{postgres['POSTGRES_DB']}"
    assert worker[f"{PREFIX}CLIENT_ID"] == options["client-id"]
    assert worker[f"{PREFIX}CLIENT_SECRET"] == options["client-secret"]


@pytest.mark.parametrize("name", NAMES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    """Under the same number outside as inside."""
    for port in services()[name].get("ports", []):
        address, outside, inside = port.split(":")
        assert address == "127.0.0.1"
        assert outside == inside


def test_published_ports_are_the_settings() -> None:
    """The worker's admin interface, the control interface of the stand-in, the broker."""
    published = {name: {port.split(":")[-1] for port in services()[name].get("ports", [])} for name in NAMES}

    assert published["worker"] == {str(DEFAULTS.admin_port)}
    assert published["console"] == {str(DEFAULTS.console_port)}
    assert published["platform"] <= PLATFORM_PORTS
    assert "5672" in published["rabbitmq"]


def test_the_consoles_token_is_the_one_that_was_made(tmp_path: Path) -> None:
    """Its entry point makes the file of people from it, as it stands."""
    script = services({"CONSOLE_TOKEN": "made"})["console"]["entrypoint"][2].replace("$$", "$")
    file = environment(services()["console"])[f"{PREFIX}CONSOLE_TOKENS_FILE"]
    here = script.replace(file, str(tmp_path / "people")).replace("exec order-worker console", "true")
    subprocess.run(
        ["sh", "-c", here], env={"PATH": os.environ["PATH"], "CONSOLE_TOKEN": "made"}, check=True, timeout=20
    )
    person = People(tmp_path / "people").holder_of("made")

    assert here != script
    assert person is not None
    assert person.operates


@pytest.mark.parametrize("name", NAMES)
def test_images_of_others_are_pinned_by_version(name: str) -> None:
    """At least two numbers; ours is built."""
    image = services()[name]["image"]
    tag = image.rpartition(":")[2]

    assert name in ours() or re.match(r"v?\d+\.\d+", tag), image


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_limited(name: str) -> None:
    """Processors, memory, processes and logs."""
    service = services()[name]

    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert "max-size" in service["logging"]["options"]


@pytest.mark.parametrize("name", NAMES)
def test_health_is_asked_and_waited_for(name: str) -> None:
    """Whoever is needed is well before the others start; one-shot services end well."""
    found = services()
    for other, how in found[name].get("depends_on", {}).items():
        ends = found[other].get("restart") == "no"
        assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy")
        assert ends or "test" in found[other]["healthcheck"]
    assert "healthcheck" in found[name]


@pytest.mark.parametrize("name", tuple(ours()))
def test_our_containers_can_do_nothing_but_their_job(name: str) -> None:
    """Read-only root file system, no capabilities, no new privileges."""
    service = ours()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_worker_gets_longer_than_its_grace() -> None:
    """Compose kills after that time; the drain has to fit."""
    assert int(services()["worker"]["stop_grace_period"].removesuffix("s")) > DEFAULTS.drain_grace_s + 10


def test_what_is_mounted_is_there() -> None:
    """Docker would make an empty folder, owned by root, of whatever is missing; volumes are declared."""
    for service in services().values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (FOLDER / source).exists() if source.startswith(".") else source in compose.composed()["volumes"]


def test_no_secret_is_in_it() -> None:
    """Everything that is a password has to be given; there are no defaults."""
    secret = re.compile(r"PASS|SECRET|TOKEN", re.IGNORECASE)
    for service in services(dict.fromkeys(required(), "GIVEN")).values():
        values = [
            value for name, value in environment(service).items() if secret.search(name) and not name.endswith("_FILE")
        ]
        passwords = [urlsplit(value).password for value in environment(service).values() if "://" in str(value)]
        assert set(values) | {password for password in passwords if password} <= {"GIVEN"}


def test_make_makes_what_it_asks_for(tmp_path: Path) -> None:
    """Each variable once, unlike the others, for nobody else to read; an existing file stays."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "docker").mkdir()
    make = ["make", "--silent", "docker/.env"]
    subprocess.run(make, cwd=tmp_path, check=True, timeout=20)
    file = tmp_path / "docker/.env"
    before = file.read_text()
    subprocess.run(make, cwd=tmp_path, check=True, timeout=20)
    pairs = dict(line.split("=") for line in before.splitlines())

    assert set(pairs) == required()
    assert len(set(pairs.values())) == len(pairs)
    assert all(re.fullmatch(r"[0-9a-f]{32}", value) for value in pairs.values())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == before


def test_prometheus_and_grafana_know_each_other() -> None:
    """The data source is the service, and what Prometheus scrapes are services at their ports."""
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    jobs = yaml.safe_load((FOLDER / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in jobs for config in job["static_configs"] for target in config["targets"]}
    provider = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/order-worker.yaml").read_text())["providers"][
        0
    ]
    mounts = dict(mount.split(":")[:2][::-1] for mount in services()["grafana"]["volumes"])

    assert source["url"] == "http://prometheus:9090"
    assert f"worker:{DEFAULTS.admin_port}" in targets
    assert {target.split(":")[0] for target in targets} <= {*NAMES, "127.0.0.1"}
    assert mounts[provider["options"]["path"]] == "./grafana/dashboards"


@pytest.mark.timeout(300)  # where promtool is missing it is installed
def test_prometheus_takes_its_configuration() -> None:
    """By its own check, with the rules that are there."""
    if shutil.which("promtool") is None:
        install("prometheus", otherwise="install Debian's package prometheus, which has promtool")
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"],
        cwd=FOLDER / "prometheus",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_services_stand_in_the_order_of_their_start() -> None:
    """Who reads the file from above meets nobody who is not known yet."""
    for earlier, later in pairwise(NAMES):
        assert later not in services()[earlier].get("depends_on", {})


def test_make_up_says_where_to_look(tmp_path: Path) -> None:
    """The addresses that it prints are published; with a program in Docker's place, that does nothing."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "docker").mkdir()
    told = subprocess.run(
        ["make", "up", "COMPOSE=true"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20
    ).stdout
    published = {port.split(":")[1] for service in services().values() for port in service.get("ports", [])}
    printed = set(re.findall(r"http://127\.0\.0\.1:(\d+)", told))

    assert "true up --build --detach" in told
    assert {"3000", "8080", "8085", "8091", "9090", "15672"} == printed
    assert printed <= published
