"""The RabbitMQ generations of the tests: the machine's own package, and newer ones in a file tree of their own.

``ORDER_WORKER_TEST_RABBITMQ`` names the one to test on: ``local`` (the default), ``4.0`` or ``4.3``. The newer ones are
Debian's packages of a later release, laid out once by debootstrap in a cache folder and run in a chroot: root needed,
nothing of the machine changed but debootstrap installed. Containers are not used even where a Docker daemon answers:
kill -9, SIGSTOP and the files of a node would need a second way for everything. As a program (``python -m
tests.support.generation 4.3``) it lays a generation out; exit code 1 where it cannot be had.
"""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.debiantree import DebianTree, Unavailable
from worker.adapters.brokerinstallation import Installation, LocalPackage, ensure_rabbitmq
from worker.core.errors import UsageError

VARIABLE: Final = "ORDER_WORKER_TEST_RABBITMQ"
LOCAL: Final = "local"
SUITES: Final = {"4.0": "trixie", "4.3": "forky"}
"""Debian releases by the RabbitMQ they carry (trixie: 4.0.5 on Erlang 27, forky: 4.3.6 on Erlang 29)."""
NEWEST: Final = "4.3"
PLUGIN: Final = "rabbitmq_consistent_hash_exchange"
NAMES: Final = (LOCAL, *SUITES)

# The private namespace lives as long as its last process, so nothing stays mounted, however the node ends. Each step
# replaces the shell, so signals to our child reach the node. The folder beside ``home`` is the machine's temporary one.
_ENTER: Final = """set -e
root=$1 home=$2 parent=$(dirname "$2")
shift 2
mount -t proc proc "$root/proc"
mkdir -p "$root$parent"
mount --bind "$parent" "$root$parent"
exec chroot "$root" /usr/bin/env -C "$home" PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""
_SCRIPTS: Final = Path("usr/lib/rabbitmq/bin")


@dataclass(slots=True, frozen=True, kw_only=True)
class ChrootInstallation:
    """Implements ``Installation`` with the programs of the file tree ``root``."""

    root: Path

    def command(self, program: str, *arguments: str, home: Path) -> list[str]:
        """Enters the tree in a mount namespace of its own, then becomes the program."""
        script = _SCRIPTS / program
        inside = f"/{script}" if (self.root / script).is_symlink() else program
        enter = ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(self.root), str(home)]
        return [*enter, inside, *arguments]

    @property
    def version(self) -> str:
        """As the folder of the package has it."""
        return _version_below(self.root / "usr/lib/rabbitmq/lib")


def name() -> str:
    """The generation this session runs on. Raises UsageError for a name we do not know."""
    chosen_name = os.environ.get(VARIABLE) or LOCAL
    if chosen_name not in NAMES:
        raise UsageError(f"{VARIABLE} is {chosen_name!r}; known are {', '.join(NAMES)}")
    return chosen_name


def chosen() -> Installation:
    """The installation to test on; lays it out at first use (30 s to a minute). Raises Unavailable."""
    return LocalPackage() if name() == LOCAL else tree(name())


def tree(generation: str) -> ChrootInstallation:
    """A newer generation, laid out where it is missing. Raises Unavailable."""
    return ChrootInstallation(root=DebianTree(suite=SUITES[generation], include=("rabbitmq-server",)).ensure())


def hash_exchange() -> str:
    """The exchange type by which partitions are spread on this generation; with ``hash_plugins`` it has it."""
    return "x-modulus-hash" if name() == NEWEST else "x-consistent-hash"


def hash_plugins() -> tuple[str, ...]:
    """What has to be enabled for that."""
    return () if name() == NEWEST else (PLUGIN,)


def version() -> str:
    """The exact version of the generation chosen, for people; lays it out where it is missing. Raises Unavailable."""
    if name() != LOCAL:
        return tree(name()).version
    return _version_below(ensure_rabbitmq().resolve().parents[2])


def not_run() -> tuple[str, ...]:
    """The generations that this session does not run on."""
    return tuple(other for other in NAMES if other != name())


def _version_below(folder: Path) -> str:
    found = (re.fullmatch(r"rabbitmq_server-(.+)", entry.name) for entry in folder.glob("rabbitmq_server-*"))
    return next((match[1] for match in found if match), "unknown version")


def main(arguments: list[str]) -> int:
    """Lay out the generations named; the newest where none is."""
    for generation in arguments or [NEWEST]:
        try:
            print(f"RabbitMQ {tree(generation).version} ({generation}) is there")  # noqa: T201 - a program
        except Unavailable as missing:
            width = min(shutil.get_terminal_size().columns, 100)
            banner = "!" * width
            text = f"RabbitMQ {generation} CANNOT BE HAD HERE, its tests are NOT run: {missing}"
            sys.stderr.write(f"{banner}\n{text}\n{banner}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
