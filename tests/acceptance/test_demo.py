"""``order-worker demo`` as people start it: it proves its claims, and leaves nothing behind unless asked to."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from worker.adapters.privatebroker import PrivateBroker
from worker.demo.platform import DOCUMENTED_REPLY
from worker.demo.processes import json_lines

DEADLINE_S = 100.0
FEW = ("--events", "200")
BROKER = "ORDER_WORKER_AMQP_URL"
# It waits for an outage of 5 s, and shares two cores with other tests.
pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


@contextmanager
def demo(folder: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The demo, with its temporary files in ``folder`` and no settings but these; ended on the way out."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ORDER_WORKER_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "demo", *arguments],
        cwd=folder, env=clean | {"TMPDIR": str(folder)} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.terminate()


def finished(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """Its JSON report and what it told on the way."""
    out, err = process.communicate(timeout=DEADLINE_S)

    assert out, err
    report: dict[str, Any] = json.loads(out)
    return report, err


def until_told(process: subprocess.Popen[str], text: str) -> None:
    """Wait until it tells ``text``."""
    assert process.stderr is not None
    assert any(text in line for line in process.stderr), f"it never said {text!r}"


def living_in(folder: Path) -> set[int]:
    """Processes that work in a folder below ``folder``, as everything does that the demo starts."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if folder in link.readlink().parents:
                found.add(int(link.parent.name))
    return found


def wait_until_gone(pids: set[int]) -> None:
    """Wait for processes that are not our children."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            ended = os.pidfd_open(pid)
            readable, _, _ = select.select([ended], [], [], DEADLINE_S)
            os.close(ended)
            assert readable, f"process {pid} does not end"


def queues(broker: PrivateBroker) -> list[str]:
    """Names of queues that demos have made on this broker."""
    return [name for name in broker.ctl("list_queues", "name").split() if name.startswith("order-updates-demo-")]


def test_everything_is_accounted_for_and_every_order_is_right(broker: PrivateBroker, tmp_path: Path) -> None:
    """On a broker that was named: exit code 0, the documented reply, every fate present, nothing left there or here."""
    there_before = broker.ctl("list_exchanges", "name").splitlines()
    with demo(tmp_path, *FEW, "--json", **{BROKER: broker.url}) as process:
        report, told = finished(process)

    accounted = report["accounted"]
    assert (process.returncode, report["problems"]) == (0, []), told
    assert accounted["events"] == report["events"]["published"] == 200
    assert (
        accounted["applied"] + accounted["superseded"] + accounted["duplicate"] + sum(accounted["dead"].values()) == 200
    )
    assert min(accounted["applied"], accounted["superseded"], report["retried"]) > 0
    assert accounted["dead"].keys() == {"invalid-event", "rejected"}
    assert report["orders"] == {"right": 20, "wrong": {}}
    assert report["reply"] == DOCUMENTED_REPLY
    assert 4.0 < report["outage_s"] < 15.0
    assert report["kept"] is None
    assert "OUTAGE" in told
    assert queues(broker) == []
    assert sorted(broker.ctl("list_exchanges", "name").splitlines()) == sorted(there_before)
    assert (list(tmp_path.iterdir()), living_in(tmp_path)) == ([], set())


def test_keep_leaves_it_running_and_says_how_to_stop_it(broker: PrivateBroker, tmp_path: Path) -> None:
    """Worker and platform go on under the settings that are printed, and killing the pids named ends all of it."""
    with demo(tmp_path, *FEW, "--json", "--keep", **{BROKER: broker.url}) as process:
        report, told = finished(process)
    kept = report["kept"]
    pids = {pid for named in kept["pids"].values() for pid in named}
    try:
        assert process.returncode == 0, told
        assert living_in(tmp_path) == pids
        assert len(pids) == 2
        assert BROKER not in kept["environment"]  # it may hold the person's own password
        assert kept["environment"]["ORDER_WORKER_QUEUE"] in queues(broker)
        assert all(line in told for line in kept["how_to_stop"])
        [log] = tmp_path.glob("order-worker-demo-*/worker.log")
        assert [line["event"] for line in json_lines(log)].count("worker.stopped") == 1
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        wait_until_gone(pids)
        for name in queues(broker):
            broker.ctl("delete_queue", name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_everything(number: signal.Signals, tmp_path: Path) -> None:
    """In the middle of its work, on a private broker: no process and no file of it is left."""
    with demo(tmp_path) as process:
        until_told(process, "published ")
        before = living_in(tmp_path)
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE_S)

    assert len(before) >= 4  # platform, worker, and the broker with its port mapper
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert (list(tmp_path.iterdir()), living_in(tmp_path)) == ([], set())


def test_a_broker_that_refuses_is_named(broker: PrivateBroker, tmp_path: Path) -> None:
    """Exit code 2, the reason, nothing started in vain, and never the password."""
    wrong = broker.url.replace("guest:guest", "guest:hunter2")
    with demo(tmp_path, *FEW, **{BROKER: wrong}) as process:
        out, err = process.communicate(timeout=DEADLINE_S)

    assert (process.returncode, out) == (2, "")
    assert "refuses the login" in err
    assert "hunter2" not in err
    assert living_in(tmp_path) == set()


def test_a_worker_that_cannot_start_is_told_with_its_last_words(broker: PrivateBroker, tmp_path: Path) -> None:
    """The demo fails with exit code 1, stops the rest, and says where the logs are."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import sys\nif sys.orig_argv[-1] == 'run': sys.exit('no luck today')\n")
    with demo(tmp_path, *FEW, **{BROKER: broker.url, "PYTHONPATH": str(broken)}) as process:
        out, err = process.communicate(timeout=DEADLINE_S)

    [folder] = tmp_path.glob("order-worker-demo-*")
    assert (process.returncode, out) == (1, "")
    assert "the worker ended with exit code" in err
    assert "no luck today" in err
    assert f"The logs are in {folder}" in err
    assert living_in(tmp_path) == set()


def test_a_private_broker_names_what_a_kept_demo_leaves() -> None:
    """The node, its port mapper and its folder: what --keep tells people to end and to remove."""
    with PrivateBroker() as broker:  # the demo's is the local package's, whatever the suite runs on
        assert broker.home is not None
        assert broker.home.is_dir()
        assert len(broker.pids) == 2
        assert set(broker.pids) <= living_in(broker.home.parent)
