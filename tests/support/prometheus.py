"""A private Prometheus for tests: Debian's, on a loopback port, with a data folder of its own.

async with PrivatePrometheus(folder, targets=["127.0.0.1:8080"]) as prometheus:
    [series] = await prometheus.now("up")
"""

import asyncio
import contextlib
import math
import shutil
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from tests.support.promtool import rules_file
from worker.adapters.aptpackage import install
from worker.adapters.freeports import free_port

DEADLINE_S = 30.0
POLL_S = 0.1
JOB = "order-worker"
NAMESPACE = "orders"
"""A label of every target, as a cluster's Prometheus has it."""

Series = Mapping[str, Any]
"""As the HTTP API tells it: ``metric`` has the labels, ``value`` or ``values`` the figures."""


def configuration(targets: Sequence[str]) -> dict[str, Any]:
    """Scrape these and judge the alert rules, each second: a test has no quarter of a minute to wait."""
    static = [{"targets": list(targets), "labels": {"namespace": NAMESPACE}}]
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": JOB, "static_configs": static}],
    }


def numbers(series: Series) -> list[float]:
    """The figures of a series that are numbers: the share of nothing is none."""
    pairs = series["values"] if "values" in series else [series["value"]]
    return [number for _, text in pairs if not math.isnan(number := float(text))]


@dataclass(slots=True)
class PrivatePrometheus:
    """Scrapes ``targets`` (host:port) and holds the alert rules of the manifests. Leaves no process behind."""

    folder: Path
    targets: Sequence[str]
    port: int = field(init=False)
    _server: Process | None = None
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        if shutil.which("prometheus") is None:
            await asyncio.to_thread(install, "prometheus", otherwise="install Debian's package prometheus")
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration(self.targets)))
        (self.folder / "rules.yaml").write_text(rules_file())
        self.port = free_port()
        with (self.folder / "prometheus.log").open("wb") as log:
            self._server = await asyncio.create_subprocess_exec(
                *self._command(), cwd=self.folder, stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{self.port}")
        try:
            await self._until_ready()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def log_text(self) -> str:
        """What it said; warnings and worse."""
        return (self.folder / "prometheus.log").read_text(encoding="utf-8", errors="replace")

    async def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of the HTTP API; AssertionError with its words where it refuses."""
        assert self._session is not None
        async with self._session.get(f"/api/v1/{path}", params=parameters) as answer:
            told = await answer.json()
        assert told["status"] == "success", f"{parameters}: {told}"
        return told["data"]

    async def now(self, query: str) -> list[Series]:
        """The series of an instant query."""
        told: list[Series] = (await self.ask("query", query=query))["result"]
        return told

    async def since(self, query: str, began: float) -> list[Series]:
        """The series of a range query in steps of a second, from this time (seconds since 1970) until now."""
        answer = await self.ask("query_range", query=query, start=str(began), end=str(time.time()), step="1")
        told: list[Series] = answer["result"]
        return told

    async def until(self, query: str, *, deadline_s: float = DEADLINE_S) -> list[Series]:
        """Wait until this query has a result (a comparison has one when it holds)."""
        end = time.monotonic() + deadline_s
        while not (found := await self.now(query)):
            assert time.monotonic() < end, f"it did not come to {query}; Prometheus said:\n{self.log_text[-2000:]}"
            await asyncio.sleep(POLL_S)
        return found

    def _command(self) -> list[str]:
        return [
            "prometheus",
            "--config.file=prometheus.yaml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    async def _until_ready(self) -> None:
        end = time.monotonic() + DEADLINE_S
        while not await self._ready():
            assert self._server is not None
            assert self._server.returncode is None, self.log_text
            assert time.monotonic() < end, self.log_text
            await asyncio.sleep(POLL_S)

    async def _ready(self) -> bool:
        assert self._session is not None
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with self._session.get("/-/ready") as answer:
                return answer.status == 200
        return False

    async def _end(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._server is not None and self._server.returncode is None:
            self._server.terminate()
            try:
                await asyncio.wait_for(self._server.wait(), DEADLINE_S)
            except TimeoutError:
                self._server.kill()
                await self._server.wait()
