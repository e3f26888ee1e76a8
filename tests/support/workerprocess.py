"""The worker as people run it: a process of its own, configured by environment, heard through its log lines."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.broker import Lanes

DEADLINE_S = 20.0
PREFIX = "ORDER_WORKER_"
PROGRAM = ("worker", "run")
NO_ADMIN = {"ADMIN_PORT": "0"}
"""Several workers run at a time, and one port cannot serve them all; tests of the admin interface choose one."""

Line = Mapping[str, Any]


class WorkerProcess:
    """One life of ``order-worker run``. ``lines`` are its log lines, ``output`` is everything it wrote, as it came."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._changed = asyncio.Event()
        self._readers = [
            asyncio.create_task(self._read(stream, name), name=f"read the worker's {name}")
            for name, stream in (("stdout", process.stdout), ("stderr", process.stderr))
            if stream is not None
        ]
        self.lines: list[Line] = []
        self.output = ""

    @classmethod
    async def start(cls, settings: Mapping[str, str], *, cwd: Path, program: Sequence[str] = PROGRAM) -> Self:
        """Start it with these settings (names without prefix) and nothing else of ours in its environment, but for the
        lane that the test is about."""
        lane = {} if Lanes.fast else {"DELIVERY_LANE": "ordinary"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *program),
            env=inherited | {f"{PREFIX}{name}": value for name, value in (NO_ADMIN | lane | dict(settings)).items()},
            cwd=cwd,
            stdout=PIPE,
            stderr=PIPE,
            limit=1024 * 1024,
        )
        return cls(process)

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        async for raw in stream:
            text = raw.decode()
            self.output += text
            if name == "stderr" and text.startswith("{"):
                self.lines.append(json.loads(text))
            self._changed.set()
        self._changed.set()

    # -- listening ------------------------------------------------------------------------------------------------

    def heard(self, event: str, **fields: object) -> list[Line]:
        """The log lines of this event that have these fields."""
        wanted = {"event": event, **fields}
        return [line for line in self.lines if wanted.items() <= line.items()]

    async def until(self, condition: Callable[["WorkerProcess"], object], *, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the condition on what was heard holds. AssertionError with its output if it does not in time, or
        if the worker ends before."""
        try:
            async with asyncio.timeout(deadline_s):
                while not condition(self):
                    assert not all(reader.done() for reader in self._readers), f"it ended:\n{self.output}"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not heard within {deadline_s} s:\n{self.output[-6000:]}") from None

    async def until_heard(self, event: str, *, deadline_s: float = DEADLINE_S, **fields: object) -> Line:
        """Wait for a log line of this event with these fields, and return the first one."""
        await self.until(lambda worker: worker.heard(event, **fields), deadline_s=deadline_s)
        return self.heard(event, **fields)[0]

    @property
    def counts(self) -> Mapping[str, int]:
        """The counters of its last line (``worker.stopped``)."""
        stopped = self.heard("worker.stopped")
        assert stopped, f"it did not stop in good order:\n{self.output[-6000:]}"
        counts: Mapping[str, int] = stopped[0]["counts"]
        return counts

    # -- ending ---------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    @property
    def stopped(self) -> bool:
        """Whether SIGSTOP froze it."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def resident_bytes(self, *, peak: bool = False) -> int:
        """Its memory now, or the most it ever had."""
        name = "VmHWM:" if peak else "VmRSS:"
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

    @property
    def cpu_s(self) -> float:
        """User and system seconds so far, 10 ms exactly. Only while it runs."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self, *, deadline_s: float = DEADLINE_S) -> int:
        """Wait for its end and all its output; the exit code (minus the signal that killed it)."""
        try:
            async with asyncio.timeout(deadline_s):
                code = await self._process.wait()
                await asyncio.wait(self._readers)
        except TimeoutError:
            raise AssertionError(f"it did not end within {deadline_s} s:\n{self.output[-6000:]}") from None
        return code

    async def terminate(self, *, deadline_s: float = DEADLINE_S) -> int:
        """Ask it to stop, and wait for that; the exit code."""
        if self.is_running:
            self.send(signal.SIGTERM)
        return await self.ended(deadline_s=deadline_s)

    async def kill(self) -> None:
        """End it at once, as the kernel would; harmless if it has ended."""
        if self.is_running:
            self.send(signal.SIGKILL)
        await self.ended()
