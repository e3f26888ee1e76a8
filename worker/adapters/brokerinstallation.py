"""Where a RabbitMQ comes from: the programs of one installation, and the distribution's package as the usual one.

A private broker asks for command lines only, so it runs from the local package as well as from a file tree of another
RabbitMQ version. The Debian wrapper in /usr/sbin changes to the user rabbitmq and its directories, so the scripts of
RabbitMQ itself are run.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.adapters.aptpackage import install
from worker.core.errors import UsageError

_SCRIPT_DIRS = (Path("/usr/lib/rabbitmq/bin"), Path("/opt/rabbitmq/sbin"), Path("/usr/local/sbin"))


class Installation(Protocol):
    """One RabbitMQ with its Erlang, whose programs can be run."""

    def command(self, program: str, *arguments: str, home: Path) -> list[str]:
        """The command line of ``rabbitmq-server``, ``rabbitmqctl`` or ``epmd``; the process it starts is the program.

        The program sees ``home`` and everything beside it at the same path as the caller does, and the caller's
        environment. Raises UsageError where the program is not there. May block: it may install what is missing.
        """


@dataclass(slots=True, frozen=True, kw_only=True)
class LocalPackage:
    """The RabbitMQ of this machine; the server is installed at first use where it is missing."""

    def command(self, program: str, *arguments: str, home: Path) -> list[str]:
        """As ``Installation`` says."""
        script = ensure_rabbitmq() if program == "rabbitmq-server" else find_script(program)
        if script is None:
            raise UsageError(f"{program} was not found: is rabbitmq-server installed?")
        return [str(script), *arguments]


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
    install("rabbitmq-server", otherwise="install it, or set ORDER_WORKER_AMQP_URL to a running broker")
    script = find_script("rabbitmq-server")
    if script is None:
        raise UsageError("apt-get installed rabbitmq-server, but its start script was not found")
    return script
