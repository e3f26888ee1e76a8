"""A place for a worker: one life after the other, each a process of its own behind the same TCP proxy.

What a life writes goes to a file, of which only counts and the lines that say something are kept here.
"""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.memory import Memory, resident_bytes
from tests.support.accounting import Accounting
from tests.support.proxy import TcpProxy
from worker.adapters.freeports import free_port

ROOT = Path(__file__).parents[2]
PREFIX = "ORDER_WORKER_"
ENDING_S = 40.0
ASK_S = 2.0
CHUNK = 1 << 20
CONCERNING = frozenset({"worker.stopped", "broker.channel_gone"})
"""What the accounts want to know."""


class Life:
    """One process of a worker. ``heard`` counts its log lines by event."""

    def __init__(self, label: str, process: Process, log: Path, admin_port: int) -> None:
        self.label = label
        self.log = log
        self.heard: Counter[str] = Counter()
        self.memory = Memory()
        self._process = process
        self._born_s = time.monotonic()
        self._admin = f"http://127.0.0.1:{admin_port}"
        self._read = 0
        self._rest = b""

    @classmethod
    async def start(cls, label: str, settings: Mapping[str, str], folder: Path) -> "Life":
        """Start ``order-worker run`` with these settings and nothing else of ours in its environment."""
        port, log = free_port(), folder / f"{label}.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        given = {f"{PREFIX}{name}": value for name, value in {**settings, "ADMIN_PORT": str(port)}.items()}
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "worker", "run"),
                env={**inherited, "PYTHONPATH": str(ROOT), **given},
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        return cls(label, process, log, port)

    @property
    def returncode(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.returncode

    def look(self, accounting: Accounting) -> None:
        """Read what it wrote since the last time, and how much memory it has."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            while chunk := file.read(CHUNK):
                self._read += len(chunk)
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    self._hear(line, accounting)
        if self.returncode is None:
            self.memory.note(time.monotonic() - self._born_s, resident_bytes(self._process.pid))

    def _hear(self, raw: bytes, accounting: Accounting) -> None:
        if not raw.startswith(b"{"):
            self.heard["(no log line)"] += bool(raw.strip())
            return
        line = json.loads(raw)
        self.heard[line["event"]] += 1
        if line["event"] in CONCERNING:
            accounting.note_worker([line])

    async def ask(self, method: str, path: str) -> dict[str, Any] | None:
        """The answer of its admin interface, None if there is none in time."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)) as session,
                session.request(method, self._admin + path) as answer,
            ):
                said: dict[str, Any] = await answer.json()
                return said
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; harmless if it has ended."""
        if self.returncode is None:
            self._process.send_signal(number)

    async def ended(self) -> int | None:
        """Wait for its end: the exit code, or None if it had to be killed for not ending in time."""
        try:
            async with asyncio.timeout(ENDING_S):
                return await self._process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._process.wait()
            return None


class Replica:
    """One of the places. ``unasked`` notes lives that ended by themselves, ``past`` counts what all lives logged."""

    def __init__(self, slot: int, proxy: TcpProxy, folder: Path) -> None:
        self.slot = slot
        self.proxy = proxy
        self.life: Life | None = None
        self.lives = 0
        self.past: Counter[str] = Counter()
        self.unasked: list[str] = []
        self.oldest = Memory()
        self.peak = 0
        self._folder = folder
        self._down_on_purpose = False

    @property
    def next_label(self) -> str:
        """What the next life will be called."""
        return f"worker-{self.slot}-{self.lives + 1}"

    async def start(self, settings: Mapping[str, str]) -> None:
        """Begin the next life."""
        label = self.next_label
        self.lives += 1
        self.life = await Life.start(label, settings, self._folder)
        self._down_on_purpose = False

    def look(self, accounting: Accounting) -> None:
        """See ``Life.look``."""
        if self.life is not None:
            self.life.look(accounting)
            self.peak = max(self.peak, self.life.memory.peak)

    async def end(self, number: signal.Signals, accounting: Accounting) -> int | None:
        """End this life; its exit code, None if it had to be killed. Harmless if there is none."""
        self._down_on_purpose = True
        if self.life is None:
            return 0
        self.life.send(number)
        code = await self.life.ended()
        self.bury(accounting)
        return code

    @property
    def died(self) -> bool:
        """Whether its life ended, and nobody wanted that."""
        return self.life is not None and self.life.returncode is not None and not self._down_on_purpose

    def bury(self, accounting: Accounting) -> None:
        """Keep what is worth it of a life that ended."""
        life, self.life = self.life, None
        if life is None:
            return
        life.look(accounting)
        if not self._down_on_purpose:
            self.unasked.append(f"{life.label} ended with {life.returncode} by itself, see {life.log}")
        self.past.update(life.heard)
        self.peak = max(self.peak, life.memory.peak)
        if life.memory.age_s > self.oldest.age_s:
            self.oldest = life.memory
