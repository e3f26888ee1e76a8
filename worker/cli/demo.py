"""``order-worker demo``: the whole job on one machine, with proof that it was done right."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from worker import telemetry
from worker.core.errors import WorkerError
from worker.core.settings import LogFormat, LogLevel, LogSettings
from worker.demo.broker import choose_broker
from worker.demo.course import Kept, Plan, carry_out
from worker.demo.load import FEWEST
from worker.demo.report import print_report

Keep = Annotated[bool, typer.Option("--keep", help="Leave broker, platform and worker running, and say where.")]
Events = Annotated[int, typer.Option(min=FEWEST, max=100_000, help="Events to publish, for a tenth as many orders.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON; progress goes to stderr anyway.")]


def demo(*, keep: Keep = False, events: Events = 5000, as_json: AsJson = False) -> None:
    """Publish events of all kinds, good and bad, break the platform for 5 s, and account for every single one.

    Takes the broker of ORDER_WORKER_AMQP_URL (under names of its own, removed afterwards), else starts a private
    RabbitMQ, else a container. Platform and worker run as processes of their own. Exit code 0 only if every event is
    accounted for and every order is right.
    """
    telemetry.configure(LogSettings(format=LogFormat.CONSOLE, level=LogLevel.ERROR, secrets=()))
    console = Console(stderr=True)
    with _folder(console) as folder, _terminable(), ExitStack() as programs:
        broker = choose_broker(os.environ, lambda text: console.print(text, markup=False, highlight=False))
        programs.callback(broker.stop)
        plan = Plan(broker=broker, events=events, keep=keep, folder=folder.path, programs=programs, console=console)
        report, kept = asyncio.run(carry_out(plan))
        if as_json:
            print(json.dumps(report.to_json() | {"kept": kept and asdict(kept)}, indent=2))
        else:
            print_report(report, Console(highlight=False))
        if kept is not None:
            programs.pop_all()
            folder.stays = True
            _tell_kept(kept)
        if report.problems:
            raise WorkerError("the demo found something wrong, see its report")


@dataclass(slots=True)
class _Folder:
    path: Path
    stays: bool = False


@contextmanager
def _folder(console: Console) -> Iterator[_Folder]:
    """A temporary folder for logs. It stays where something failed, and while it is in use."""
    folder = _Folder(Path(tempfile.mkdtemp(prefix="order-worker-demo-")))
    try:
        yield folder
    except Exception:
        folder.stays = True
        console.print(f"The logs are in {folder.path}", markup=False, highlight=False, soft_wrap=True)
        raise
    finally:
        if not folder.stays:
            shutil.rmtree(folder.path, ignore_errors=True)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP (the terminal was closed) act like Ctrl-C: everything is stopped on the way out."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _tell_kept(kept: Kept) -> None:
    """Said on stderr: stdout has the report."""
    lines = [
        "\nStill running. For further commands, such as order-worker config or run:",
        *(f"  export {name}='{value}'" for name, value in kept.environment.items()),
        f"The stand-in platform explains itself, and is steered, at {kept.sim_url}",
        *(f"{name}: process {', '.join(map(str, pids))}" for name, pids in kept.pids.items() if pids),
        "To end it all:",
        *(f"  {line}" for line in kept.how_to_stop),
    ]
    print("\n".join(lines), file=sys.stderr)
