"""A private RabbitMQ for demos and tests: a child process on loopback ports, in a temporary directory, gone afterwards.

It shares nothing with a RabbitMQ that may be installed as a service: own node name, ports, cookie, data, and its own
epmd (Erlang's port mapper) as a child too, because the one Erlang starts by itself would outlive us as a daemon.
The Debian wrapper in /usr/sbin changes to the user rabbitmq and its directories, so the script of RabbitMQ itself is
run.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.core.errors import ConnectionLost, UsageError

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
POLL_S = 0.05

_SCRIPT_DIRS = (Path("/usr/lib/rabbitmq/bin"), Path("/opt/rabbitmq/sbin"), Path("/usr/local/sbin"))
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"
# Keeps the packages' start-up scripts from starting services (Debian policy, "policy-rc.d").

_CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
log.console = false
log.file.level = warning
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
raft.wal_max_size_bytes = 33554432
collect_statistics_interval = 60000
"""


# Debian's way of keeping a freshly installed service from being started is a policy-rc.d that says no.
_INSTALL = """set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\\nexit 101\\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends rabbitmq-server
"""


def find_script(name: str) -> Path | None:
    """RabbitMQ's own script ``name`` (``rabbitmq-server``, ``rabbitmqctl``), or None where it is not installed."""
    for folder in _SCRIPT_DIRS:
        if (folder / name).exists():
            return folder / name
    found = shutil.which(name)
    return Path(found) if found else None


def ensure_rabbitmq() -> Path:
    """The server's script; installs the distribution's package first where it is missing, and says so on stderr.

    Raises UsageError where that is not possible. The installed package is never started as a service.
    """
    script = find_script("rabbitmq-server")
    if script is not None:
        return script
    as_root = [] if os.geteuid() == 0 else [path] if (path := shutil.which("sudo")) else None
    if shutil.which("apt-get") is None or as_root is None:
        raise UsageError(
            "rabbitmq-server is not installed: install it, or set ORDER_WORKER_AMQP_URL to a running broker"
        )
    # Promised to the person at the terminal: the program says so before it installs anything.
    sys.stderr.write("rabbitmq-server is missing: installing it with apt-get (it is not started as a service)\n")
    try:
        # stdout belongs to the program that asked; a person sees the progress on stderr.
        subprocess.run([*as_root, "sh", "-c", _INSTALL], check=True, stdout=sys.stderr)  # noqa: S603
    except subprocess.CalledProcessError as error:
        raise UsageError(f"apt-get could not install rabbitmq-server (exit code {error.returncode})") from error
    script = find_script("rabbitmq-server")
    if script is None:
        raise UsageError("apt-get installed rabbitmq-server, but its start script was not found")
    return script


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held while choosing, so that no two are equal."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


class PrivateBroker:
    """One RabbitMQ node of our own. ``start`` blocks up to 60 s: call it in a thread where a loop is running.

    Starting and stopping twice is harmless. ``stop`` removes the data, ``kill`` and ``restart`` keep them.
    """

    def __init__(self, *, plugins: Sequence[str] = ()) -> None:
        self._plugins = tuple(plugins)
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None
        self.port, self._epmd_port, self._dist_port = _free_ports(3)
        self.node = f"ow{os.getpid()}p{self.port}@localhost"

    @property
    def url(self) -> str:
        """The AMQP URL of the default user on the default vhost."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def ports(self) -> tuple[int, int, int]:
        """Its ports, all on 127.0.0.1: AMQP, epmd, Erlang's distribution."""
        return self.port, self._epmd_port, self._dist_port

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the node and of its epmd, while they run; SIGTERM ends each in good order."""
        return tuple(child.pid for child in (self._server, self._epmd) if child is not None)

    @property
    def home(self) -> Path | None:
        """Where its data are, from ``start`` to ``stop``."""
        return self._home

    @property
    def log_text(self) -> str:
        """What the node logged so far (warnings and errors), for failure reports."""
        logs = sorted((self._home / "log").glob("*.log")) if self._home else []
        return "\n".join(path.read_text(errors="replace") for path in logs)

    def start(self) -> Self:
        """Start the node and wait until it speaks AMQP.

        Raises UsageError where RabbitMQ is not installed, ConnectionLost where it does not come up in time.
        """
        if self._server is not None:
            return self
        script = ensure_rabbitmq()
        home = self._prepare_home()
        self._start_epmd()
        with (home / "log" / "console.log").open("ab") as console:
            self._server = self._spawn([str(script)], console=console.fileno())
        try:
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

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on this node and return what it printed. Takes about 1 s: it starts its own Erlang."""
        script = find_script("rabbitmqctl")
        if script is None or self._home is None:
            raise UsageError("rabbitmqctl needs an installed rabbitmq-server and a started node")
        command = [str(script), "-q", "-n", self.node, *arguments]
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
            (self._home / "rabbitmq.conf").write_text(_CONFIG.format(port=self.port))
            (self._home / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
        return self._home

    def _environment(self) -> dict[str, str]:
        home = self._home
        if home is None:
            raise UsageError("the private broker was not started")
        return {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
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
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +A 8 -kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _spawn(self, command: list[str], *, console: int) -> subprocess.Popen[bytes]:
        # A session of its own: its whole process group can be ended without ever naming a foreign process.
        return subprocess.Popen(  # noqa: S603 - our own command line
            command,
            env=self._environment(),
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _start_epmd(self) -> None:
        epmd = shutil.which("epmd")
        if epmd is None:
            raise UsageError("epmd is not on the PATH: is Erlang installed?")
        if self._epmd is None:
            command = [epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = self._spawn(command, console=subprocess.DEVNULL)

    def _wait_ready(self, deadline: float) -> None:
        while not _speaks_amqp(self.port):
            ended = self._server is None or self._server.poll() is not None
            if ended or time.monotonic() > deadline:
                cause = "ended" if ended else f"was not ready within {START_DEADLINE_S:.0f} s"
                raise ConnectionLost(f"the private RabbitMQ {cause}; its last words:\n{self.log_text[-2000:]}")
            time.sleep(POLL_S)

    def _end(self, how: signal.Signals) -> None:
        for child, first in ((self._server, how), (self._epmd, signal.SIGKILL)):
            if child is not None:
                _end_group(child, first)
        self._server = self._epmd = None


def _end_group(child: subprocess.Popen[bytes], first: signal.Signals) -> None:
    """Signal the child's process group; what has not ended after the deadline is killed."""
    for step in (first, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, step)
        try:
            child.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            continue
        return


def _speaks_amqp(port: int) -> bool:
    """Whether a broker answers the AMQP protocol header; an open port alone comes before the node is ready."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as probe:
            probe.sendall(_PROTOCOL_HEADER)
            return probe.recv(1) == _METHOD_FRAME
    except OSError:
        return False
