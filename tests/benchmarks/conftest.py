"""The stage of the benchmarks: private broker, platform in a process of its own, queues with names of their own."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.benchmarks.load import Queues
from tests.benchmarks.measure import Platform, Program, start_worker
from tests.support.broker import unique_topology
from worker.adapters.amqp.declaring import declare
from worker.adapters.privatebroker import PrivateBroker
from worker.config import Settings


@dataclass(slots=True, frozen=True, kw_only=True)
class Stage:
    """Where a benchmark takes place."""

    folder: Path
    amqp_url: str
    queues: Queues
    platform: Platform

    def worker(self, name: str = "worker", *, journal_url: str = "memory") -> Program:
        """Start a worker on these queues; the caller ends it."""
        return start_worker(
            self.folder,
            name,
            amqp_url=self.amqp_url,
            names=self.queues.names,
            platform=self.platform,
            journal_url=journal_url,
        )


@pytest.fixture
async def stage(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[Stage]:
    """Empty queues and a platform without orders."""
    defaults = Settings.model_fields
    names = unique_topology(
        retry_delays_s=defaults["retry_delays_s"].default, delivery_limit=defaults["delivery_limit"].default
    )
    queues = await Queues.connect(broker.url, names)
    try:
        await declare(queues.connection, names)
        async with Platform.start(tmp_path) as platform:
            yield Stage(folder=tmp_path, amqp_url=broker.url, queues=queues, platform=platform)
    finally:
        await queues.close()
