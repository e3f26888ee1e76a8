"""Erlang's port mapper (epmd) as a child process, on a loopback port of its own: nodes of one cluster share one."""

import os
import signal
import subprocess
from pathlib import Path

from worker.adapters.brokerinstallation import Installation
from worker.adapters.childprocess import end_group, spawn


class PortMapper:
    """Where nodes find each other's distribution ports. Starting and stopping twice is harmless."""

    def __init__(self, installation: Installation, port: int) -> None:
        self._installation = installation
        self._child: subprocess.Popen[bytes] | None = None
        self.port = port

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._child.pid if self._child is not None else None

    @property
    def environment(self) -> dict[str, str]:
        """What tells an Erlang program to use this one."""
        return {"ERL_EPMD_PORT": str(self.port), "ERL_EPMD_ADDRESS": "127.0.0.1"}

    def start(self, home: Path) -> None:
        """Start it; it works in ``home``. Raises UsageError where Erlang is not installed."""
        if self._child is None:
            arguments = ("-port", str(self.port), "-address", "127.0.0.1")
            command = self._installation.command("epmd", *arguments, home=home)
            path = os.environ.get("PATH", os.defpath)
            self._child = spawn(command, env={"PATH": path}, cwd=home, console=subprocess.DEVNULL)

    def stop(self) -> None:
        """End it. Nodes that run go on, and are found no more."""
        if self._child is not None:
            end_group(self._child, signal.SIGKILL)
            self._child = None
