"""The programs that the demo starts: the stand-in platform and the worker, each a process of its own.

Their output goes to files in the demo's folder. They get sessions of their own, so that Ctrl-C in the terminal reaches
the demo alone, which then stops them in order.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from worker.core.errors import WorkerError

READY_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 30.0
"""Longer than the worker's own DRAIN_GRACE_S (25)."""
POLL_S: Final = 0.05

_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH")


class DemoFailed(WorkerError):
    """A part of the demo did not do what the demo needs; the text says which."""


class Program:
    """One ``order-worker`` command as a child process, with stdout and stderr in files of ``folder``.

    The environment is built from nothing but ``settings`` and what a process needs to run at all: no setting of the
    person at the terminal, no ``.env``, no mounted secret reaches it.
    """

    def __init__(self, name: str, arguments: list[str], *, folder: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.output, self.log = folder / f"{name}.out", folder / f"{name}.log"
        home = folder / name
        (home / "secrets").mkdir(parents=True, exist_ok=True)
        environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        environment |= {"ORDER_WORKER_SECRETS_DIR": str(home / "secrets"), **settings}
        with self.output.open("ab") as output, self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "worker", *arguments],
                cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def line(self, wanted: str, *, deadline_s: float = READY_DEADLINE_S) -> dict[str, Any]:
        """The first JSON line of its output or log that has the key or the event ``wanted``.

        Raises DemoFailed where it ends before, or does not come in time.
        """
        until = time.monotonic() + deadline_s
        while True:
            ended = self._process.poll() is not None
            for line in (*json_lines(self.output), *json_lines(self.log)):
                if wanted in line or line.get("event") == wanted:
                    return line
            if ended or time.monotonic() > until:
                raise DemoFailed(f"the {self.name} {self._fate()}; its last words:\n{self._last_words()}")
            await asyncio.sleep(POLL_S)

    def check(self) -> None:
        """Raises DemoFailed if the process ended by itself."""
        if self._process.poll() is not None:
            raise DemoFailed(f"the {self.name} {self._fate()}; its last words:\n{self._last_words()}")

    def stop(self) -> int:
        """SIGTERM, wait, in the end SIGKILL. Returns the exit code; stopping twice is harmless."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_DEADLINE_S)
            except BaseException as error:  # a second Ctrl-C among them
                self._process.kill()
                self._process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
        return self._process.returncode

    def _fate(self) -> str:
        code = self._process.returncode
        return "was not ready in time" if code is None else f"ended with exit code {code}"

    def _last_words(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-1000:].strip() for path in (self.output, self.log)).strip()


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in a file, one per line; other lines, and one that is still being written, are left out."""
    with path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found
