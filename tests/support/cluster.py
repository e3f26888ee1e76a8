"""A private RabbitMQ cluster on loopback: nodes that are killed, frozen, cut off from each other and healed.

The nodes share a port mapper and a cookie, and find each other by a list in their settings. A network split is made of
cookies: a side that expects a wrong cookie of the other's nodes refuses every connection attempt from there, in either
direction, and healing puts the right one back; no proxy has to know Erlang's distribution protocol. Every method blocks
(a ``rabbitmqctl`` costs about 1 s): call it in a thread where a loop is running.
"""

import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.generation import chosen
from worker.adapters.brokerinstallation import Installation
from worker.adapters.freeports import free_port
from worker.adapters.portmapper import PortMapper
from worker.adapters.privatebroker import PrivateBroker
from worker.core.errors import ConnectionLost

DEADLINE_S: Final = 60.0
POLL_S: Final = 0.2

_MEMBERS: Final = """
{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)),
{{Name, _}} = amqqueue:get_pid(Q),
"""
_LEADER: Final = _MEMBERS + "{{ok, _, {{_, Leader}}}} = ra:members({{Name, node()}}), Leader."
_MOVE: Final = _MEMBERS + (
    "{{ok, _, Leader}} = ra:members({{Name, node()}}), ra:transfer_leadership(Leader, {{Name, '{node}'}})."
)
_REFUSE: Final = "[begin erlang:set_cookie(N, '{cookie}'), erlang:disconnect_node(N) end || N <- [{nodes}]]."
_ADMIT: Final = "[begin erlang:set_cookie(N, '{cookie}'), net_adm:ping(N) end || N <- [{nodes}]]."

_RUNNING: Final = """
F = case erlang:function_exported(rabbit_nodes, list_running, 0) of true -> list_running; false -> all_running end,
{rabbit:is_running(), rabbit_nodes:F()}.
"""
"""all_running is its name up to RabbitMQ 3.11."""


class PrivateCluster:
    """``size`` nodes, numbered from 0. Starting and stopping twice is harmless.

    ``tick_s`` is Erlang's net_ticktime: after 0.75 to 1.25 times that long a silent node counts as gone.
    ``partitions`` is RabbitMQ's cluster_partition_handling.
    """

    def __init__(
        self,
        *,
        size: int = 3,
        tick_s: int = 8,
        partitions: str = "pause_minority",
        installation: Installation | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._installation = installation or chosen()
        mapper_port = free_port()
        self._mapper = PortMapper(self._installation, mapper_port)
        self._mapper_home: tempfile.TemporaryDirectory[str] | None = None
        self._cookie = secrets.token_hex(16).upper()
        common = {"net_ticktime": str(tick_s), "cluster_partition_handling": partitions, **(settings or {})}
        self.nodes = tuple(self._node(common) for _ in range(size))
        self._introduce()

    def _node(self, settings: Mapping[str, str]) -> PrivateBroker:
        return PrivateBroker(
            settings=settings, installation=self._installation, mapper=self._mapper, cookie=self._cookie
        )

    def _introduce(self) -> None:
        """Tell every node the names of all, in their settings."""
        peers = {f"cluster_formation.classic_config.nodes.{n}": each.node for n, each in enumerate(self.nodes, 1)}
        for node in self.nodes:
            node.configure({"cluster_formation.peer_discovery_backend": "classic_config", **peers})

    @property
    def urls(self) -> tuple[str, ...]:
        """The AMQP URL of each node."""
        return tuple(node.url for node in self.nodes)

    @property
    def log_text(self) -> str:
        """What all nodes logged, for failure reports."""
        return "\n".join(f"== {node.node}\n{node.log_text}" for node in self.nodes)

    # -- life -----------------------------------------------------------------------------------------------------

    def start_all(self) -> Self:
        """Start every node at once and wait until each sees all. Raises ConnectionLost where that takes over 60 s."""
        if self._mapper_home is None:
            self._mapper_home = tempfile.TemporaryDirectory(prefix="order-worker-cluster-")
        self._mapper.start(Path(self._mapper_home.name))
        try:
            self._each(PrivateBroker.start)
            self.until_whole()
        except BaseException:
            self.stop_all()
            raise
        return self

    def stop_all(self) -> None:
        """End every node and remove all data."""
        # By force: a node that is asked politely waits for the others to take over what they cannot any more.
        self._each(PrivateBroker.kill)
        self._each(PrivateBroker.stop)
        self._mapper.stop()
        if self._mapper_home is not None:
            self._mapper_home.cleanup()
            self._mapper_home = None

    def __enter__(self) -> Self:
        return self.start_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    # -- faults ---------------------------------------------------------------------------------------------------

    def kill(self, number: int) -> None:
        """End a node as a power cut does; its data stay."""
        self.nodes[number].kill()

    def start(self, number: int) -> None:
        """Start a node that was killed, and wait until it speaks AMQP."""
        self.nodes[number].start()

    def pause(self, number: int) -> None:
        """Freeze a node: its connections stay open, and nothing answers.

        Frozen for longer than ``tick_s`` it counts as gone. Up to RabbitMQ 3.x (Mnesia) it then stays apart after
        ``resume``, whatever ``partitions`` says, until it is killed and started; 4.3 (Khepri) takes it back.
        """
        self.nodes[number].pause()

    def resume(self, number: int) -> None:
        """Let a frozen node go on."""
        self.nodes[number].resume()

    def partition(self, *numbers: int) -> None:
        """Cut these nodes off from all others. Returns when neither side sees the other any more."""
        for number in numbers:
            self._say(number, _REFUSE.format(cookie="WRONG", nodes=self._quoted(self._others(numbers))))
        others = self._names(self._others(numbers))
        for number in numbers:
            self._until(lambda seen: not seen & others, number, "the split")

    def heal(self, *numbers: int) -> None:
        """Let these nodes talk to the others again. Returns when every node sees all and takes clients."""
        for number in numbers:
            self._say(number, _ADMIT.format(cookie=self._cookie, nodes=self._quoted(self._others(numbers))))
        self.until_whole()

    # -- quorum queues --------------------------------------------------------------------------------------------

    def leader_of(self, queue: str, *, asked: int = 0) -> int:
        """The number of the node that leads this quorum queue, as the node ``asked`` knows it."""
        said = self._say(asked, _LEADER.format(queue=queue))
        return self._number_of(said)

    def move_leader(self, queue: str, to: int) -> None:
        """Make this node the leader of the quorum queue. Returns when it is."""
        self._say(to, _MOVE.format(queue=queue, node=self.nodes[to].node))
        deadline = time.monotonic() + DEADLINE_S
        while self.leader_of(queue, asked=to) != to:
            self._wait(deadline, f"node {to} to lead {queue}")

    # -- looking --------------------------------------------------------------------------------------------------

    def until_whole(self) -> None:
        """Wait until every node runs RabbitMQ and sees all others do so."""
        everyone = {node.node for node in self.nodes}
        for number in range(len(self.nodes)):
            self._until(lambda seen: seen == everyone, number, f"node {number} to see all")

    def _seen_by(self, number: int) -> set[str]:
        """The names of the nodes on which RabbitMQ runs, itself included, as this one sees it."""
        said = self._say(number, _RUNNING)
        return set(re.findall(r"[\w.]+@localhost", said)) if "true" in said else set()

    def _say(self, number: int, expression: str) -> str:
        return self.nodes[number].ctl("eval", " ".join(expression.split()))

    def _until(self, condition: Callable[[set[str]], bool], number: int, what: str) -> None:
        """Wait until what this node sees is as it should be."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition(self._seen_by(number)):
            self._wait(deadline, what)

    def _wait(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise ConnectionLost(f"waited {DEADLINE_S:.0f} s for {what}:\n{self.log_text[-4000:]}")
        time.sleep(POLL_S)

    def _each(self, step: Callable[[PrivateBroker], object]) -> None:
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(step, self.nodes))

    def _others(self, numbers: Sequence[int]) -> list[int]:
        return [number for number in range(len(self.nodes)) if number not in numbers]

    def _names(self, numbers: Sequence[int]) -> set[str]:
        return {self.nodes[number].node for number in numbers}

    def _quoted(self, numbers: Sequence[int]) -> str:
        return ",".join(f"'{self.nodes[number].node}'" for number in numbers)

    def _number_of(self, said: str) -> int:
        [number] = (n for n, node in enumerate(self.nodes) if node.node in said)
        return number
