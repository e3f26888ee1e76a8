"""Child processes that end with us: each in a session of its own, so that its whole group can be signalled."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

STOP_DEADLINE_S = 20.0


def spawn(command: list[str], *, env: Mapping[str, str], cwd: Path, console: int) -> subprocess.Popen[bytes]:
    """Start it with no input; what it prints goes to the file descriptor ``console``."""
    # A session of its own: its whole process group can be ended without ever naming a foreign process.
    return subprocess.Popen(  # noqa: S603 - our own command line
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def end_group(child: subprocess.Popen[bytes], first: signal.Signals) -> None:
    """Signal the child's process group; what has not ended after 20 s is killed. A frozen group is woken for it."""
    for step in (first, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, step)
            os.killpg(child.pid, signal.SIGCONT)
        try:
            child.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            continue
        return
