"""What a campaign breaks: one broker, one stand-in platform, two workers behind proxies, a load, and the accounts."""

import asyncio
import itertools
import random
import sqlite3
import time
from collections import Counter, deque
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, Signals
from types import TracebackType
from typing import Self

import msgspec

from tests.chaos.lookout import Lookout
from tests.chaos.replica import Replica
from tests.chaos.schedule import SLOTS
from tests.support.accounting import Accounting, Verdict
from tests.support.arena import Arena
from tests.support.broker import unique_topology
from tests.support.orderbooks import REJECTED
from tests.support.producer import Producer
from tests.support.proxy import TcpProxy
from worker.adapters.privatebroker import PrivateBroker
from worker.simulator.exchange import Platform
from worker.simulator.oauth import Tokens
from worker.simulator.options import EDIT_SCOPE, Options

ORDERS = 3000
SAMPLE = 20_000
"""Draws from which the load takes its orders at random: order n as often as 1 / n, as Zipf found it."""
RETRY_DELAYS_S = (0.5, 1.0, 2.0)
SETTINGS = {
    "PREFETCH": "400",
    "MAX_BATCH": "50",
    "CALL_TIMEOUT_S": "4",
    "DRAIN_GRACE_S": "10",
    "HOLD_LIMIT_S": "8",
    "MAX_UNSETTLED_S": "60",
    "HEARTBEAT_S": "5",
    "RETRY_DELAYS_S": ",".join(map(str, RETRY_DELAYS_S)),
}
"""Small limits, so that every one of them is met."""
JOURNAL = "journal.db"
"""The file that all lives of both workers share: what one of them applied the next one knows, however it ended."""
OWED = "SELECT count(*) FROM orders WHERE echo_us IS NOT NULL OR claim_expires_us IS NOT NULL"
LABELS_KEPT = 2 * SLOTS
"""Scopes that the platform knows at a time; those of dead workers need none."""
CALLS_KEPT = 100
OPTIONS = Options(rejected_values=REJECTED, latency_s=(0.0, 0.04))


class LifeTokens(Tokens):
    """Takes the last scope of a token for the name of its client, so that each life of a worker is a client of its own.

    Who steps back on what it had written itself is counted apart.
    """

    def issue(self, client: str, scopes: frozenset[str], lifetime_s: float) -> str:
        """As ever, for the life that asks."""
        return super().issue(next(iter(scopes - {EDIT_SCOPE}), client), scopes, lifetime_s)


def zipf(seed: int) -> list[int]:
    """Order ids, the first ones far more often than the last ones."""
    weights = list(itertools.accumulate(1 / number for number in range(1, ORDERS + 1)))
    return random.Random(seed).choices(range(1, ORDERS + 1), cum_weights=weights, k=SAMPLE)


@dataclass(slots=True)
class Stage:
    """Everything that lives as long as the campaign. ``progress`` counts what the platform wrote."""

    node: PrivateBroker
    folder: Path
    seed: int
    rate_per_s: float
    arena: Arena = field(init=False)
    replicas: list[Replica] = field(default_factory=list)
    lookout: Lookout = field(init=False)
    load: Producer = field(init=False)
    progress: int = 0
    _labels: list[str] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        options = msgspec.structs.replace(OPTIONS, seed=self.seed)
        names = unique_topology(retry_delays_s=RETRY_DELAYS_S)
        self.arena = await self._stack.enter_async_context(Arena(self.node, self.folder, options, names))
        self.platform.tokens = LifeTokens(self.platform.clock)
        # Each keeps its whole request, and nobody reads them here.
        self.platform.calls.recent = deque(maxlen=CALLS_KEPT)
        self.arena.accounting = Accounting(self.platform)
        # Workers choose their ports themselves, life by life.
        self._stack.push_async_callback(self._end_workers)
        for slot in range(SLOTS):
            proxy = await self._stack.enter_async_context(TcpProxy(self.node.port))
            self.replicas.append(Replica(slot, proxy, self.folder))
        dead_queue = self.arena.names.dead_queue
        queues = [queue.name for queue in self.arena.names.queues if queue.name != dead_queue]
        self.lookout = Lookout(self.node.url, self.accounting, dead_queue=dead_queue, queues=queues)
        await self._stack.enter_async_context(self.lookout)
        self.load = self.arena.load(
            orders=zipf(self.seed),
            rate_per_s=self.rate_per_s,
            refused_every=100,
            invalid_every=170,
            twice_every=30,
            seed=self.seed,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def platform(self) -> Platform:
        """The stand-in itself."""
        return self.arena.simulator.platform

    @property
    def accounting(self) -> Accounting:
        """The books."""
        return self.arena.accounting

    async def start_worker(self, slot: int) -> None:
        """Begin the next life in this place."""
        replica = self.replicas[slot]
        label = replica.next_label
        self._labels = [*self._labels, label][-LABELS_KEPT:]
        self.arena.set_options(scopes=(EDIT_SCOPE, *self._labels))
        own = {
            "AMQP_URL": replica.proxy.url(),
            "OAUTH_SCOPE": f"{EDIT_SCOPE} {label}",
            "JOURNAL_URL": f"sqlite:///{self.folder / JOURNAL}",
        }
        await replica.start(self.arena.settings | SETTINGS | own)

    async def end_worker(self, slot: int, number: Signals) -> int | None:
        """End the life in this place; its exit code, None if it had to be killed."""
        return await self.replicas[slot].end(number, self.accounting)

    async def look(self) -> int:
        """Take over what happened since the last look; how many events the platform or the dead letters got of it."""
        changes = self.accounting.fold()
        self.progress += changes
        for replica in self.replicas:
            replica.look(self.accounting)
            if replica.died:
                replica.bury(self.accounting)
                await self.start_worker(replica.slot)
        return changes

    async def in_hand(self) -> int | None:
        """Events in the workers' hands, None where one does not say."""
        held = 0
        for replica in self.replicas:
            said = await replica.life.ask("GET", "/state") if replica.life is not None else None
            if said is None:
                return None
            held += said["unsettled"]
        return held

    async def owed(self) -> int:
        """Orders that the journal still has something to do about: an echo, or a claim that nobody cleared."""
        return await asyncio.to_thread(_count, self.folder / JOURNAL)

    @property
    def heard(self) -> Counter[str]:
        """What all lives logged, by event."""
        lives = (replica.life.heard for replica in self.replicas if replica.life is not None)
        return sum(itertools.chain(lives, (replica.past for replica in self.replicas)), Counter[str]())

    async def account(self) -> Verdict:
        """The accounts of a campaign that came to its end; takes what is left in the queues."""
        queued = [body for queue in self.lookout.depths for body in await self.arena.take(queue)]
        self.accounting.replace_queued(queued)
        self.accounting.note_broker(self.node.log_text)
        return self.accounting.verdict(alone=False)

    async def _end_workers(self) -> None:
        for replica in self.replicas:
            if replica.life is not None:
                replica.life.send(SIGCONT)
            await replica.end(SIGKILL, self.accounting)


def _count(journal: Path) -> int:
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        return int(connection.execute(OWED).fetchone()[0])


def now_s() -> float:
    """The clock of a campaign."""
    return time.monotonic()
