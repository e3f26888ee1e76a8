"""README.md keeps its word: generated tables are up to date, commands exist, examples work."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import NOW_US, make_delivery
from tests.support.broker import Outside
from tests.support.readme import README, TABLES, renewed
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.cli import main
from worker.config import Settings, variable
from worker.core.decode import EventSchema
from worker.core.model import Update

TEXT = README.read_text(encoding="utf-8")
ROOT = README.parent
SHORT = r"`((?!ORDER_WORKER_|OTEL_)[A-Z]+_[A-Z_]+)(?:=[a-z]+)?`"
"""Settings without their prefix; those of OpenTelemetry are not ours."""


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def shell_lines(program: str) -> list[str]:
    """Lines of shell blocks that start this program, without comments."""
    lines = [line.split("#")[0].strip() for block in blocks("shell") for line in block.splitlines()]
    return [line for line in lines if line.split()[:1] == [program]]


def test_generated_tables_are_up_to_date() -> None:
    """If this fails: ``make docs``."""
    assert renewed(TEXT) == TEXT


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_a_place_is_an_error(name: str) -> None:
    """A marker that was deleted by hand must not switch its check off."""
    with pytest.raises(ValueError, match=name):
        renewed(TEXT.replace(f"<!-- END {name} -->", ""))


def test_an_outdated_table_is_made_anew() -> None:
    """Whatever stands between the markers is replaced."""
    assert renewed(TEXT.replace("| `ORDER_WORKER_QUEUE` |", "| `ORDER_WORKER_KEUE` |")) == TEXT


@pytest.mark.parametrize("line", shell_lines("order-worker"))
def test_commands_and_their_options_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is understood as it stands; --help keeps it from doing anything."""
    assert main.run([*shlex.split(line)[1:], "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_an_unknown_option_would_be_noticed() -> None:
    """The check above would fail on a line that is no longer right."""
    assert main.run(["demo", "--kep", "--help"]) == 2


@pytest.mark.parametrize("line", shell_lines("make"))
def test_make_targets_exist(line: str) -> None:
    """Each has a line in ``make help``."""
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert shlex.split(line)[1] in [row.split()[0] for row in shown.stdout.splitlines()]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"!\[[^]]+\]\(([^)]+)\)", TEXT))))
def test_every_picture_exists_and_is_small(name: str) -> None:
    """Whoever clones the repository has all of them."""
    assert (ROOT / name).read_bytes().startswith(b"\x89PNG")
    assert (ROOT / name).stat().st_size < 100_000


def test_every_setting_that_is_named_exists() -> None:
    """Prose ages faster than tables."""
    known = {variable(name) for name in Settings.model_fields}

    named = set(re.findall(r"ORDER_WORKER_[A-Z_]*[A-Z]", TEXT))
    short = {variable(name.lower()) for name in re.findall(SHORT, TEXT)}
    assert short
    assert named | short <= known


@pytest.mark.parametrize("block", blocks("json"))
def test_the_example_event_is_one(block: str) -> None:
    """The worker takes it as it stands."""
    decoded = EventSchema({}, ()).decode(make_delivery(block.encode(), arrived_us=NOW_US))

    assert isinstance(decoded, Update)
    assert decoded.order_id == json.loads(block)["id"]


@pytest.mark.broker
async def test_the_python_example_publishes_an_event(
    broker: PrivateBroker, outside: Outside, queues: Topology, tmp_path: Path
) -> None:
    """Run as it stands, but for the address and the exchange; what arrives is a good event, stamped and persistent."""
    [code] = blocks("python")
    program = tmp_path / "producer.py"
    addressed = code.replace("amqp://guest:guest@localhost:5672/", broker.url)
    program.write_text(addressed.replace('"order-updates"', repr(queues.exchanges[0].name)))

    done = subprocess.run(  # noqa: ASYNC221 - nothing else happens meanwhile
        [sys.executable, str(program)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    message = await outside.take(queues.work_queue)
    decoded = EventSchema({}, ()).decode(make_delivery(message.body, arrived_us=2**62))
    assert isinstance(decoded, Update)
    assert (decoded.order_id, decoded.fields) == (46140199, {"status": 4})
    assert b"occurred_at" in message.body
    properties = message.header.properties
    assert (properties.content_type, properties.delivery_mode) == ("application/json", 2)
    assert properties.message_id
