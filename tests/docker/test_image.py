"""The image, built as its Dockerfile says and run as a container would be: it does the job and leaves in order."""

import json
import signal
from pathlib import Path

import pytest

from tests.support.container import ContainerProcess, finished
from tests.support.image import Image
from tests.support.world import World, stamped
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WRITING = """
import os, sys
for place in sys.argv[1:]:
    try:
        os.close(os.open(place + "/probe", os.O_CREAT | os.O_WRONLY))
        print(place)
    except OSError:
        pass
"""


def test_labels_say_what_it_is(image: Image) -> None:
    """The build arguments arrive as OCI labels."""
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in image.config["Labels"].items()}

    assert labels["title"] == "order-update-worker"
    assert (labels["version"], labels["revision"], labels["created"]) == ("1.2.3", "abc", "2026-11-22T00:00:00Z")


def test_it_is_started_without_a_shell(image: Image) -> None:
    """Signals reach the worker itself, and a command of ours can be given instead of `run`."""
    assert (image.config["Entrypoint"], image.config["Cmd"]) == (["order-worker"], ["run"])
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.config["Healthcheck"]["Test"][0] == "CMD"


def test_nothing_of_it_belongs_to_its_user_but_the_working_folder(image: Image) -> None:
    """Whoever takes the worker over cannot change it, not even where the root file system is writable."""
    user, _ = image.user
    work = image.root / image.config["WorkingDir"].lstrip("/")
    owned = {
        path for top in ("opt", "etc", "usr", "var") for path in (image.root / top).rglob("*") if _owner(path) == user
    }

    assert owned == {work}


def test_no_build_tools_are_in_it(image: Image) -> None:
    """Neither compiler nor pip, nor what only the build needs; no caches either."""
    site = next((image.root / "opt/order-worker/lib").glob("python3*")) / "site-packages"
    present = {path.name for path in site.iterdir()} | {path.name for path in (site.parents[2] / "bin").iterdir()}

    assert present.isdisjoint({"pip", "setuptools", "wheel", "hatchling", "pytest", "mypy"})
    assert not any((image.root / "usr/bin" / name).exists() for name in ("gcc", "cc", "make"))
    assert not (image.root / "root/.cache").exists()
    assert not (image.root / "source").exists()


def test_byte_code_is_there_and_never_checked(image: Image) -> None:
    """A read-only container cannot write any; unchecked-hash byte code survives other time stamps."""
    package = next((image.root / "opt/order-worker/lib").glob("python3*")) / "site-packages/worker"
    modules = sorted(package.rglob("*.py"))
    compiled = [next((module.parent / "__pycache__").glob(f"{module.stem}.*.pyc")) for module in modules]

    assert len(modules) > 50
    # PEP 552: the flags are bytes 4 to 7; bit 0 is "hash-based", bit 1 "check the source".
    assert {path.read_bytes()[4] for path in compiled} == {0b01}


def test_only_the_working_folder_can_be_written(image: Image, home: Path) -> None:
    """The root file system is read-only, and nothing of ours needs another."""
    places = ["/", "/opt/order-worker", "/tmp", "/usr", "/var/lib/order-worker"]  # noqa: S108 - looked at, not used
    done = finished(image, "python", "-c", WRITING, *places, home=home)

    assert (done.returncode, done.stdout.split()) == (0, ["/var/lib/order-worker"]), done.stderr


def test_its_commands_work_without_a_worker(image: Image, home: Path) -> None:
    """What compose runs from it: version, settings, the journal's tables."""
    assert finished(image, "order-worker", "--version", home=home).stdout.startswith("order-worker ")
    shown = finished(image, "order-worker", "config", "--json", home=home, QUEUE="another")
    assert json.loads(shown.stdout), shown.stderr
    made = finished(image, "order-worker", "journal", "upgrade", home=home, JOURNAL_URL="sqlite:///made.db")

    assert made.returncode == 0, made.stderr
    assert (home / "made.db").exists()


def test_nobody_is_well_where_no_worker_runs(image: Image, home: Path) -> None:
    """The health check says no, and why."""
    port = free_port()
    done = finished(image, *image.config["Healthcheck"]["Test"][1:], home=home, ADMIN_PORT=str(port))

    assert done.returncode == 1
    assert "refused" in done.stdout


async def test_without_a_place_for_its_journal_it_consumes_nothing(image: Image, closed: Path) -> None:
    """A read-only container that nobody gave a volume: it says so and waits, instead of forgetting later."""
    broker = free_port()
    settings = {"CLIENT_ID": "somebody", "CLIENT_SECRET": "secret", "ADMIN_PORT": "0"}
    worker = await ContainerProcess.run(image, settings | {"AMQP_URL": f"amqp://127.0.0.1:{broker}/"}, home=closed)
    try:
        line = await worker.until_heard("journal.unavailable")
        code = await worker.terminate()
    finally:
        await worker.kill()

    assert "unable to open database file" in line["detail"]
    assert not worker.heard("broker.consuming")
    assert code == 0


@pytest.mark.broker
async def test_an_event_is_applied_and_sigterm_ends_it_in_order(
    broker: PrivateBroker, image: Image, home: Path, tmp_path: Path
) -> None:
    """As its own user, read-only, as process 1: it consumes, calls, settles, is well, and leaves with exit code 0."""
    port = free_port()
    async with World(broker, tmp_path) as world:
        settings = world.settings | {"ADMIN_PORT": str(port)}
        worker = await ContainerProcess.run(image, settings, home=home)
        try:
            await worker.until_heard("worker.ready")
            await world.publish([stamped(1, 4), stamped(2, 8)])
            await world.until_applied({1: 4, 2: 8})
            checked = await worker.execute(image, image.config["Healthcheck"]["Test"][1:], settings)
            status = worker.status
            code = await worker.terminate()
        finally:
            await worker.kill()

        assert checked == (0, "")
        assert status["Uid"].split() == [str(image.user[0])] * 4
        assert (int(status["CapEff"], 16), status["NoNewPrivs"], status["NSpid"].split()[-1]) == (0, "1", "1")
        assert worker.heard("worker.draining", signal=signal.SIGTERM.name)
        assert (code, worker.counts["applied"]) == (0, 2)
        assert await world.leftover() == 0


def _owner(path: Path) -> int:
    return path.lstat().st_uid
