"""docker/traffic.py: demo traffic that the publishing command takes, most of it good."""

import json
import subprocess
import sys
from typing import Any

from tests.builders import NOW_US, make_delivery
from tests.support.compose import services
from tests.support.image import ROOT
from worker.config import Settings
from worker.core.decode import EventSchema
from worker.core.lines import Line, LineRules
from worker.core.model import Update

SCRIPT = ROOT / "docker" / "traffic.py"
COUNT = 2000
DEFAULTS = Settings(_env_file=None)  # type: ignore[call-arg]
SCHEMA = EventSchema({}, frozenset(), DEFAULTS.max_clock_skew_s)


def traffic() -> list[bytes]:
    """Some of it, the same each time."""
    options = ["--rate", "1e6", "--count", str(COUNT), "--seed", "7"]
    done = subprocess.run([sys.executable, "-I", SCRIPT, *options], capture_output=True, check=True, timeout=30)
    return done.stdout.splitlines()


def test_nearly_all_events_are_good_and_a_few_are_not() -> None:
    """Enough bad ones to look at, far fewer than the storm guard would stop."""
    rules = LineRules(SCHEMA)
    lines = [Line(number=number, text=text, checksum=0) for number, text in enumerate(traffic(), 1)]
    refused = [found for line in lines if isinstance(found := rules.prepare(line, stamp_us=NOW_US, now_us=NOW_US), str)]

    assert len(lines) == COUNT
    assert 0 < len(refused) < COUNT / 100
    assert all("colour" in problem for problem in refused)


def test_events_are_stamped_by_the_command_behind_it() -> None:
    """So that their age is the time they took, and no order is at its end."""
    events: list[dict[str, Any]] = [json.loads(line) for line in traffic()]

    assert not any("occurred_at" in event for event in events)
    assert not {event["status"] for event in events} & set(DEFAULTS.terminal_statuses)


def test_the_stand_in_refuses_what_it_should() -> None:
    """The carrier that compose.yaml names appears, rarely, and can be decoded."""
    command = services()["platform"]["command"]
    (option,) = [word.removeprefix("--set=rejected_values=") for word in command if "rejected_values" in word]
    (carrier,) = json.loads(option)["shipping_carrier"]
    named = [line for line in traffic() if json.loads(line).get("shipping_carrier") == carrier]

    assert 0 < len(named) < COUNT / 50
    assert isinstance(SCHEMA.decode(make_delivery(json.loads(named[0]))), Update)


def test_it_ends_when_nobody_reads() -> None:
    """Without a word: the command behind it has said why."""
    with subprocess.Popen([sys.executable, "-I", SCRIPT, "--rate", "1e4"], stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()

        assert process.wait(timeout=20) == 1
        assert process.stderr.read() == b""
