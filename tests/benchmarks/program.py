"""A program under measurement: a process of its own, and what it cost.

CPU seconds are user + system of the whole process. Memory is the high-water mark of its resident set (``VmHWM``): the
``ru_maxrss`` of an ended child will not do, as it starts with what its parent had. The machine is small and shared, so
rates vary; CPU seconds are the steady figure.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
POLL_S = 0.01


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Program:
    """``python -m MODULE ...`` with only the given variables of ours; stdout and stderr go to files in ``folder``."""

    def __init__(self, folder: Path, name: str, *arguments: str, **variables: str) -> None:
        self._out = folder / f"{name}.out"
        self._log = folder / f"{name}.log"
        self._cpu_s = 0.0
        self.cpu_before_s = 0.0
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
            self._cpu_s = cpu_seconds(self._process.pid)
        return self._cpu_s

    @property
    def work_cpu_s(self) -> float:
        """CPU seconds since ``mark``."""
        return self.cpu_s - self.cpu_before_s

    def mark(self) -> None:
        """The start is over, the work begins."""
        self.cpu_before_s = self.cpu_s

    @property
    def peak_mb(self) -> float:
        """The most memory it had so far (MB = 1,000,000 bytes). Only while it runs."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError("the process has ended")

    @property
    def printed(self) -> list[dict[str, Any]]:
        """The JSON lines on its stdout so far."""
        return [json.loads(line) for line in self._out.read_text().splitlines(keepends=True) if line.endswith("\n")]

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
        await self._until(lambda: bool(self.printed), "nothing printed")

    async def end(self, number: int | None = signal.SIGTERM, *, deadline_s: float = DEADLINE_S) -> int:
        """Send a signal (None: it ends by itself) and wait for the end; its exit code. Ending twice is harmless."""
        if self.returncode is None and number is not None:
            os.kill(self._process.pid, number)
        await self._until(self._reap, "still running", may_end=True, deadline_s=deadline_s)
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

    async def _until(
        self, condition: Callable[[], bool], problem: str, *, may_end: bool = False, deadline_s: float = DEADLINE_S
    ) -> None:
        try:
            async with asyncio.timeout(deadline_s):
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
