"""Programs under measurement: each a process of its own, and what it cost; and what the stand-in platform saw.

CPU seconds are user + system of the whole life of the process, start-up included. Memory is the high-water mark of its
resident set (``VmHWM``). The machine is small and shared, so rates vary; CPU seconds are the steady figure.
"""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from worker.adapters.amqp.topology import Topology
from worker.simulator.options import Options

ROOT = Path(__file__).parents[2]
LATENCY_S = 0.02
DEADLINE_S = 60.0
POLL_S = 0.01


class Program:
    """``python -m MODULE ...`` with only the given variables of ours; stdout and stderr go to files in ``folder``."""

    def __init__(self, folder: Path, name: str, *arguments: str, **variables: str) -> None:
        self._out = folder / f"{name}.out"
        self._log = folder / f"{name}.log"
        self._cpu_s = 0.0
        with self._out.open("wb") as out, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                # Not the repository: a developer's .env must not change what is measured.
                cwd=folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
                stdout=out,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def returncode(self) -> int | None:
        """Its exit code once it was seen to have ended."""
        return self._process.returncode

    @property
    def cpu_s(self) -> float:
        """User and system seconds so far, or of its whole life."""
        if self.returncode is None:
            user, system = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            self._cpu_s = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        return self._cpu_s

    @property
    def peak_mb(self) -> float:
        """The most memory it had so far (MB = 1,000,000 bytes). Only while it runs."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError("the process has ended")

    @property
    def stdout(self) -> str:
        """What it printed."""
        return self._out.read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log with this event, the first one first."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def wall_s(self, event: str) -> float:
        """When it logged this event last: seconds since 1970."""
        return datetime.fromisoformat(self.logged(event)[-1]["timestamp"]).timestamp()

    async def until_logged(self, event: str) -> None:
        """Wait for a log line."""
        await self._until(lambda: bool(self.logged(event)), f"no {event}")

    async def until_printed(self) -> None:
        """Wait for its first line on stdout."""
        await self._until(lambda: "\n" in self.stdout, "nothing printed")

    async def end(self, number: int | None = signal.SIGTERM) -> int:
        """Send a signal (None: it ends by itself) and wait for the end; its exit code. Ending twice is harmless."""
        if self.returncode is None and number is not None:
            os.kill(self._process.pid, number)
        await self._until(self._reap, "still running", may_end=True)
        assert self.returncode is not None
        return self.returncode

    def _reap(self) -> bool:
        """Read the costs while the ended process can still be looked at, and only then let it go."""
        if self.returncode is None:
            if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                return False
            _ = self.cpu_s
            self._process.wait()
        return True

    async def _until(self, condition: Callable[[], bool], problem: str, *, may_end: bool = False) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not condition():
                    if not may_end and self._reap():
                        raise RuntimeError(f"ended with {self.returncode}: {self._log.read_text()[-2000:]}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise TimeoutError(f"{problem}: {self._log.read_text()[-2000:]}") from None


@asynccontextmanager
async def running(program: Program) -> AsyncIterator[Program]:
    """Kill it on leaving, if it still runs."""
    try:
        yield program
    finally:
        await program.end(signal.SIGKILL)


class Platform:
    """The stand-in platform in a process of its own, looked at over its control interface."""

    def __init__(self, addresses: Mapping[str, str], session: aiohttp.ClientSession) -> None:
        self.addresses = addresses
        self._session = session

    @classmethod
    @asynccontextmanager
    async def start(cls, folder: Path) -> AsyncIterator["Platform"]:
        """Answers after ``LATENCY_S``."""
        arguments = ("simulate", "--port", "0", "--sim-port", "0", "--latency", str(LATENCY_S))
        async with running(Program(folder, "platform", "worker", *arguments)) as program:
            await program.until_printed()
            async with aiohttp.ClientSession(raise_for_status=True) as session:
                yield cls(json.loads(program.stdout), session)

    async def reset(self) -> None:
        """Forget orders and calls."""
        async with self._session.post(self.addresses["sim_url"] + "reset"):
            return

    async def state(self) -> dict[str, Any]:
        """Its counters."""
        async with self._session.get(self.addresses["sim_url"] + "state") as response:
            return dict(await response.json())

    async def orders(self) -> dict[int, dict[str, Any]]:
        """What every order says now."""
        return {order["id"]: order for order in await self._lines("orders")}

    async def calls(self) -> list[dict[str, Any]]:
        """Its last 10,000 calls."""
        return await self._lines("calls")

    async def _lines(self, what: str) -> list[dict[str, Any]]:
        async with self._session.get(self.addresses["sim_url"] + what) as response:
            return [json.loads(line) for line in (await response.text()).splitlines()]


def start_worker(
    folder: Path, name: str, *, amqp_url: str, names: Topology, platform: Platform, journal_url: str = "memory"
) -> Program:
    """The worker with default settings but for its journal, on these queues and this platform."""
    variables = {
        "AMQP_URL": amqp_url,
        "EXCHANGE": names.exchanges[0].name,
        "QUEUE": names.work_queue,
        "DEAD_LETTER_QUEUE": names.dead_queue,
        "OAUTH_URL": platform.addresses["oauth_url"],
        "GRAPHQL_URL": platform.addresses["graphql_url"],
        "CLIENT_ID": Options().client_id,
        "CLIENT_SECRET": Options().client_secret,
        "JOURNAL_URL": journal_url,
        "ADMIN_PORT": "0",
    }
    return Program(folder, name, "worker", "run", **{f"ORDER_WORKER_{key}": value for key, value in variables.items()})


def mean_fill(state: Mapping[str, Any]) -> float:
    """Entries per call, control calls (no entries) left out."""
    sizes = {int(size): times for size, times in state["calls"]["entries_per_call"].items() if size != "0"}
    return float(sum(size * times for size, times in sizes.items()) / max(1, sum(sizes.values())))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    return float(statistics.quantiles(values, n=100, method="inclusive")[percent - 1])


@dataclass(slots=True, frozen=True, kw_only=True)
class Figures:
    """What one run came to. Rates are events per second, ``platform_rate`` from its first call to its last answer."""

    events: int
    rate: float
    platform_rate: float
    calls: int
    fill: float
    cpu_s: float
    peak_mb: float

    @property
    def cpu_per_100k_s(self) -> float:
        """CPU seconds per 100,000 events."""
        return self.cpu_s * 100_000 / self.events

    def row(self, name: str) -> str:
        """A row for the table in README.md."""
        cells = (
            name,
            f"{self.events:,}",
            f"{self.rate:,.0f}",
            f"{self.platform_rate:,.0f}",
            f"{self.calls:,}",
            f"{self.fill:.1f}",
            f"{self.cpu_per_100k_s:.1f}",
            f"{self.peak_mb:.0f}",
        )
        return f"| {' | '.join(cells)} |"


HEADING = """
| run | events | events/s | by the platform | calls | fill | CPU s / 100k | MB |
|---|---|---|---|---|---|---|---|"""


def show(*lines: str) -> None:
    """Tell the person who measures (pytest's ``-s``)."""
    sys.stdout.write("\n".join(("", *lines, "")))


def conditions() -> str:
    """Under what it was measured, for README.md."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit or 'unknown'}, {os.cpu_count()} CPUs shared by all processes, "
        f"Python {sys.version.split()[0]}, load before the run {load:.1f}"
    )
