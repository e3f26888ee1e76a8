"""A private RabbitMQ for demos and tests: a child process on loopback ports, in a temporary directory, gone afterwards.

It shares nothing with a RabbitMQ that may be installed as a service: own node name, ports, cookie, data, and its own
epmd (Erlang's port mapper) as a child too, because the one Erlang starts by itself would outlive us as a daemon.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.adapters.brokerinstallation import Installation, LocalPackage
from worker.adapters.childprocess import end_group, spawn
from worker.adapters.freeports import free_ports
from worker.adapters.portmapper import PortMapper
from worker.core.errors import ConnectionLost, UsageError

START_DEADLINE_S = 60.0
POLL_S = 0.05

_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"
_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
_SETTINGS = {
    "log.console": "false",
    "log.file.level": "warning",
    "disk_free_limit.absolute": "50MB",
    "vm_memory_high_watermark.absolute": "1GB",
    "raft.wal_max_size_bytes": "33554432",
    "collect_statistics_interval": "60000",
}


class PrivateBroker:
    """One RabbitMQ node of our own. ``start`` blocks up to 60 s: call it in a thread where a loop is running.

    Starting and stopping twice is harmless. ``stop`` removes the data, ``kill`` and ``restart`` keep them.
    """

    def __init__(
        self,
        *,
        plugins: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        installation: Installation | None = None,
        mapper: PortMapper | None = None,
        cookie: str | None = None,
    ) -> None:
        """``settings`` are lines of rabbitmq.conf; ``installation`` is the local package unless another is named.

        Nodes that are to form a cluster share a ``mapper``, which is then not ours to end, and a ``cookie``.
        """
        self._installation = installation or LocalPackage()
        self._plugins = tuple(plugins)
        self._cookie = cookie
        self._server: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None
        self.port, mapper_port, self._dist_port = free_ports(3)
        self._shared_mapper = mapper is not None
        self._mapper = mapper or PortMapper(self._installation, mapper_port)
        self._settings = {"listeners.tcp.1": f"127.0.0.1:{self.port}", **_SETTINGS, **(settings or {})}
        self.node = f"ow{os.getpid()}p{self.port}@localhost"

    @property
    def url(self) -> str:
        """The AMQP URL of the default user on the default vhost."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def ports(self) -> tuple[int, int, int]:
        """Its ports, all on 127.0.0.1: AMQP, epmd, Erlang's distribution."""
        return self.port, self._mapper.port, self._dist_port

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the node and of its epmd, while they run; SIGTERM ends each in good order."""
        server = self._server.pid if self._server is not None else None
        mapper = None if self._shared_mapper else self._mapper.pid
        return tuple(pid for pid in (server, mapper) if pid is not None)

    @property
    def home(self) -> Path | None:
        """Where its data are, from ``start`` to ``stop``."""
        return self._home

    @property
    def log_text(self) -> str:
        """What the node logged so far (warnings and errors), for failure reports."""
        logs = sorted((self._home / "log").glob("*.log")) if self._home else []
        return "\n".join(path.read_text(errors="replace") for path in logs)

    def configure(self, settings: Mapping[str, str]) -> None:
        """More lines of rabbitmq.conf, for the first start."""
        self._settings |= settings

    def start(self) -> Self:
        """Start the node and wait until it speaks AMQP.

        Raises UsageError where RabbitMQ is not installed, ConnectionLost where it does not come up in time.
        """
        if self._server is not None:
            return self
        home = self._prepare_home()
        try:
            self._launch(home)
            self._wait_ready(time.monotonic() + START_DEADLINE_S)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Shut the node down in good order (at most 20 s, then by force), end its epmd, remove its data."""
        self._end(signal.SIGTERM)
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def kill(self) -> None:
        """End the node at once, as a power cut would; its data stay for ``start``."""
        self._end(signal.SIGKILL)

    def restart(self, *, force: bool = False) -> None:
        """Stop (``force``: kill) and start again on the same port with the same data."""
        self._end(signal.SIGKILL if force else signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """Freeze the node as a stalled machine does: its ports stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen node go on."""
        self._signal(signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on this node and return what it printed. Takes about 1 s: it starts its own Erlang."""
        if self._home is None:
            raise UsageError("rabbitmqctl needs a started node")
        command = self._installation.command("rabbitmqctl", "-q", "-n", self.node, *arguments, home=self._home)
        done = subprocess.run(  # noqa: S603 - our own script
            command, env=self._environment(), capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise ConnectionLost(f"rabbitmqctl {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare_home(self) -> Path:
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="order-worker-broker-"))
            (self._home / "log").mkdir()
            lines = (f"{name} = {value}\n" for name, value in self._settings.items())
            (self._home / "rabbitmq.conf").write_text("".join(lines))
            (self._home / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
            if self._cookie is not None:
                cookie = self._home / ".erlang.cookie"
                cookie.write_text(self._cookie)
                cookie.chmod(0o400)  # Erlang refuses one that others may read
        return self._home

    def _launch(self, home: Path) -> None:
        command = self._installation.command("rabbitmq-server", home=home)
        self._mapper.start(home)
        with (home / "log" / "console.log").open("ab") as console:
            self._server = spawn(command, env=self._environment(), cwd=home, console=console.fileno())

    def _environment(self) -> dict[str, str]:
        home = self._home
        if home is None:
            raise UsageError("the private broker was not started")
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(home),
            **self._mapper.environment,
            # Makes the script replace itself by the Erlang machine: our child is the node, not a shell in front of it
            # that ends earlier than the node does.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            # An existing but empty file keeps the settings of an installed service out.
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 2:2 +A 8 {_LOOPBACK}",
            "RABBITMQ_CTL_ERL_ARGS": _LOOPBACK,
        }

    def _wait_ready(self, deadline: float) -> None:
        while not _speaks_amqp(self.port):
            ended = self._server is None or self._server.poll() is not None
            if ended or time.monotonic() > deadline:
                cause = "ended" if ended else f"was not ready within {START_DEADLINE_S:.0f} s"
                raise ConnectionLost(f"the private RabbitMQ {cause}; its last words:\n{self.log_text[-2000:]}")
            time.sleep(POLL_S)

    def _signal(self, number: signal.Signals) -> None:
        if self._server is None:
            raise UsageError("the private broker does not run")
        os.killpg(self._server.pid, number)

    def _end(self, how: signal.Signals) -> None:
        if self._server is not None:
            end_group(self._server, how)
            self._server = None
        if not self._shared_mapper:
            self._mapper.stop()


def _speaks_amqp(port: int) -> bool:
    """Whether a broker answers the AMQP protocol header; an open port alone comes before the node is ready."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as probe:
            probe.sendall(_PROTOCOL_HEADER)
            return probe.recv(1) == _METHOD_FRAME
    except OSError:
        return False
