"""Which broker the demo uses: the one that was named, else a private RabbitMQ, else one in a container."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from worker.adapters.amqp.connection import shown
from worker.adapters.amqp.topology import Topology, topology
from worker.adapters.brokerinstallation import ensure_rabbitmq
from worker.adapters.privatebroker import PrivateBroker
from worker.config import variable
from worker.core import notation
from worker.core.errors import UsageError

VARIABLE: Final = variable("amqp_url")
IMAGE: Final = "rabbitmq:4"
RETRY_DELAYS_S: Final = (1.0, 2.0, 5.0, 10.0)
"""Shorter than the defaults: an order that is busy comes back within the demo."""
DELIVERY_LIMIT: Final = 100

Tell = Callable[[str], None]


@dataclass(slots=True, frozen=True, kw_only=True)
class Names:
    """What exchange and queues are called."""

    exchange: str = "order-updates"
    queue: str = "order-updates.work"
    dead_letter_queue: str = "order-updates.dead"

    @property
    def topology(self) -> Topology:
        """What the worker declares under these names."""
        return topology(
            exchange=self.exchange,
            queue=self.queue,
            dead_queue=self.dead_letter_queue,
            retry_delays_s=RETRY_DELAYS_S,
            delivery_limit=DELIVERY_LIMIT,
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class Broker:
    """A broker that is there. ``shared``: others may use it too, so we take names of our own and remove them."""

    urls: tuple[str, ...] = field(repr=False)
    text: str
    names: Names = field(default_factory=Names)
    shared: bool = False
    pids: tuple[int, ...] = ()
    how_to_remove: str = ""
    stop: Callable[[], object] = lambda: None


def choose_broker(environment: Mapping[str, str], tell: Tell) -> Broker:
    """The first one that can be had. Blocks while it starts (or is installed); ``tell`` says what is going on.

    Raises UsageError where there is none to be had, ConnectionLost where a private one does not come up.
    """
    if text := environment.get(VARIABLE):
        return _named(text)
    try:
        ensure_rabbitmq()
    except UsageError as missing:
        docker = _docker()
        if docker is None:
            raise UsageError(f"{missing}; a container would do as well, but no Docker daemon answers") from missing
        return _container(docker, tell)
    return _private(tell)


def _named(text: str) -> Broker:
    try:
        urls = notation.broker_urls(text)
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: {error}") from None
    stem = f"order-updates-demo-{uuid4().hex[:8]}"
    names = Names(exchange=stem, queue=f"{stem}.work", dead_letter_queue=f"{stem}.dead")
    return Broker(urls=urls, text=f"{VARIABLE} ({shown(urls[0])})", names=names, shared=True)


def _private(tell: Tell) -> Broker:
    tell("starting a private RabbitMQ on free ports of 127.0.0.1 ...")
    node = PrivateBroker().start()
    return Broker(
        urls=(node.url,),
        text=f"a private RabbitMQ ({shown(node.url)})",
        pids=node.pids,
        how_to_remove=f"rm -r {node.home}",
        stop=node.stop,
    )


def _docker() -> str | None:
    """The docker command, if a daemon answers it."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    try:
        done = subprocess.run([docker, "info"], capture_output=True, timeout=10, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return None
    return docker if done.returncode == 0 else None


def _container(docker: str, tell: Tell) -> Broker:
    """RabbitMQ in a container; its port is published on 127.0.0.1 only. Who connects has to wait for it to come up."""
    tell(f"rabbitmq-server is not here and cannot be installed: starting a container of {IMAGE} ...")
    container = _ask(docker, "run", "--detach", "--rm", "--publish", "127.0.0.1::5672", IMAGE)

    def remove() -> None:
        _ask(docker, "rm", "--force", container)

    try:
        port = _ask(docker, "port", container, "5672/tcp").splitlines()[0].rpartition(":")[2]
    except BaseException:
        remove()
        raise
    return Broker(
        urls=(f"amqp://guest:guest@127.0.0.1:{port}/",),
        text=f"RabbitMQ in the container {container[:12]}",
        how_to_remove=f"docker rm --force {container[:12]}",
        stop=remove,
    )


def _ask(docker: str, *arguments: str) -> str:
    environment = {**os.environ, "DOCKER_CLI_HINTS": "false"}
    done = subprocess.run(  # noqa: S603 - arguments of our own
        [docker, *arguments], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    if done.returncode != 0:
        raise UsageError(f"docker {arguments[0]} failed: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()
