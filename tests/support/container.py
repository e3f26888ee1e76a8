"""Processes in the files of an image, as a container runtime would start them, but without one.

Namespaces of mounts and of processes (so it is process 1), the root file system read-only, the image's user without any
capability, no way to new privileges, an environment with nothing of the machine's. The network is the machine's: the
broker and the platform of a test listen on loopback.
"""

import asyncio
import os
import signal
import subprocess
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.support.image import Image
from tests.support.workerprocess import PREFIX, WorkerProcess

RUN_DEADLINE_S: Final = 40.0

# Each step replaces the shell, so the program is process 1. Its folder is bound before the rest is made read-only.
_ENTER: Final = """set -e
root=$1 home=$2 work=$3 script=$4 place=$5
shift 5
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$home" "$root$work"
if [ -n "$script" ]; then mount --bind "$script" "$root$place"; fi
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"""


class ContainerProcess(WorkerProcess):
    """One life of the image's program. Signals reach the program itself, which is process 1 of its namespace."""

    @classmethod
    async def run(
        cls,
        image: Image,
        settings: Mapping[str, str],
        *,
        home: Path,
        arguments: Sequence[str] = (),
        script: tuple[Path, str] | None = None,
    ) -> Self:
        """Start what the image starts by itself, or what ``arguments`` say.

        ``home`` is mounted as its working folder and given to its user, ``script`` is one file and where to mount it.
        Settings are names without prefix.
        """
        started = arguments or [*image.config["Entrypoint"], *image.config["Cmd"]]
        process = await asyncio.create_subprocess_exec(
            *command(image, started, settings, home=home, script=script),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=1024 * 1024,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """The program's process, as the machine numbers it."""
        outer = self._process.pid
        return int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])

    @property
    def status(self) -> dict[str, str]:
        """What the kernel says of it: user, capabilities, its number in its own namespace."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines)

    def send(self, number: signal.Signals) -> None:
        """What a container runtime does with a signal: process 1 gets it, nobody else."""
        os.kill(self.pid, number)

    async def execute(self, image: Image, arguments: Sequence[str], settings: Mapping[str, str]) -> tuple[int, str]:
        """Run a program beside it, as `docker exec` and health checks do. Its exit code and output."""
        process = await asyncio.create_subprocess_exec(
            *("nsenter", f"--target={self.pid}", "--mount", "--pid", "--root"),
            *_as_user(image, arguments, settings),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=subprocess.STDOUT,
        )
        async with asyncio.timeout(RUN_DEADLINE_S):
            output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    async def kill(self) -> None:
        """End it at once; what is in its namespace goes with it, and `unshare` with its child."""
        if self.is_running:
            self.send(signal.SIGKILL)
        await self.ended()


def command(
    image: Image,
    arguments: Sequence[str],
    settings: Mapping[str, str],
    *,
    home: Path,
    script: tuple[Path, str] | None = None,
) -> list[str]:
    """What to start in order to have this program run in the image."""
    os.chown(home, *image.user)
    mounted = ("", "") if script is None else (str(script[0]), script[1])
    if script is not None:
        (image.root / script[1].lstrip("/")).touch()  # a runtime makes the place where it mounts, too
    enter = ["sh", "-c", _ENTER, "sh", str(image.root), str(home), image.config["WorkingDir"], *mounted]
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return [*isolated, *enter, *_as_user(image, arguments, settings)]


def finished(image: Image, *arguments: str, home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the image to its end; at most 40 s."""
    return subprocess.run(
        command(image, arguments, settings, home=home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_DEADLINE_S,
        check=False,
    )


def _as_user(image: Image, arguments: Sequence[str], settings: Mapping[str, str]) -> list[str]:
    user, group = image.user
    # A change of user makes the kernel forget that it should die with its parent.
    dropped = ["--pdeathsig=KILL", "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    environment = image.environment | {f"{PREFIX}{name}": value for name, value in settings.items()}
    return [
        *("setpriv", f"--reuid={user}", f"--regid={group}", *dropped),
        *("env", "--ignore-environment", f"--chdir={image.config['WorkingDir']}"),
        *(f"{name}={value}" for name, value in environment.items()),
        *arguments,
    ]
