"""A private PostgreSQL for tests: a child process on a loopback port, in a temporary directory, gone afterwards.

The server refuses to run as root, so there it runs as the package's user. The distribution's package is installed where
it is missing; it is never started as a service.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.adapters.aptpackage import install
from worker.adapters.freeports import free_port

START_DEADLINE_S = 30.0
POLL_S = 0.02
USER = "worker"


def _find(program: str) -> Path | None:
    """The newest version that is installed; Debian keeps the server's programs off the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: float(path.parts[-3]))
    found = shutil.which(program)
    return versions[-1] if versions else Path(found) if found else None


def _ensure(program: str) -> Path:
    found = _find(program)
    if found is None:
        install("postgresql", otherwise="install it")
        found = _find(program)
    assert found is not None, f"{program} is not installed"
    return found


def _account() -> tuple[int, int] | None:
    """User and group that the server has to run as, None for our own."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise AssertionError("neither postgres nor nobody is a user here")


class PrivatePostgres:
    """One PostgreSQL of our own. Its methods block; starting and stopping twice is harmless.

    ``durable`` keeps fsync on, which tests do not need: they kill processes, not machines.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        self._home: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def url(self, database: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The server's process id, while it runs."""
        assert self._server is not None
        return self._server.pid

    def start(self) -> Self:
        """Start it and wait until it lets us in (at most 30 s)."""
        if self._server is None:
            server = _ensure("postgres")
            home = self._prepare()
            options = {
                "listen_addresses": "127.0.0.1",
                "port": self.port,
                "unix_socket_directories": "",
                "fsync": "on" if self._durable else "off",
                "shared_buffers": "32MB",
                "max_connections": 200,
                "deadlock_timeout": "50ms",
                "autovacuum": "off",
            }
            arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
            with (home / "server.log").open("ab") as log:
                self._server = self._spawn([str(server), "-D", str(home / "data"), *arguments], stdout=log.fileno())
            self._wait_ready()
        return self

    def stop(self) -> None:
        """End it and remove its data."""
        self.end(signal.SIGINT)
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the server (SIGINT: in good order, SIGKILL: as a crash would); its data stay for ``start``."""
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(START_DEADLINE_S)
            self._server = None

    def freeze(self, *, frozen: bool) -> None:
        """Stop the server and all its children, each a process group of its own, or let them go on."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in (self.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def create(self, database: str, *, like: str = "template0") -> str:
        """A new database, empty or a copy of one that nobody is connected to; returns its address."""
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-T", like]
        command = [str(_ensure("createdb")), *address, database]
        subprocess.run(command, check=True, timeout=START_DEADLINE_S)
        return self.url(database)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> Path:
        if self._home is None:
            home = Path(tempfile.mkdtemp(prefix="order-worker-postgres-"))
            if (account := _account()) is not None:
                os.chown(home, *account)
            self._home = home
            command = [str(_ensure("initdb")), "-D", str(home / "data"), "-U", USER, "-A", "trust", "-E", "UTF8"]
            child = self._spawn([*command, "--no-sync", "--no-instructions", "--locale=C"], stdout=subprocess.DEVNULL)
            assert child.wait(START_DEADLINE_S) == 0, "initdb failed"
        return self._home

    def _spawn(self, command: list[str], *, stdout: int) -> subprocess.Popen[bytes]:
        account = _account()
        return subprocess.Popen(
            command,
            cwd=self._home,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", "HOME": str(self._home)},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=account[0] if account else None,
            group=account[1] if account else None,
            extra_groups=[] if account else None,
        )

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        probe = [str(_ensure("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(probe, check=False, timeout=START_DEADLINE_S).returncode != 0:
            ended = self._server is None or self._server.poll() is not None
            log = (self._home or Path()) / "server.log"
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start: {log.read_text()[-2000:]}")
            time.sleep(POLL_S)
