"""Ports that are named now and listened on later, by another program.

Half a block is asked for where all would do: a server of another test may listen on one of ours.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from worker.adapters import freeports
from worker.adapters.freeports import BEYOND, BLOCK, LOWEST, free_port, free_ports
from worker.core.errors import UsageError

HALF = BLOCK // 2
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ASKS = "from worker.adapters.freeports import free_ports; print(*free_ports({count})); input()"


def test_no_connection_can_take_them() -> None:
    """They lie below those from which this system takes the near ends of outgoing connections."""
    lowest_outgoing = int(_OUTGOING.read_text().split()[0]) if _OUTGOING.exists() else BEYOND

    assert all(LOWEST <= port < min(BEYOND, lowest_outgoing) for port in free_ports(HALF))


def test_none_is_named_again_before_all_others_were() -> None:
    """So that whoever was told one has time to listen on it."""
    named = [free_port() for _ in range(HALF)]

    assert len(set(named)) == len(named)


def test_processes_that_run_at_a_time_never_name_the_same() -> None:
    """Though nobody listens on any of them."""
    command = (sys.executable, "-c", _ASKS.format(count=HALF))
    programs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    named = [program.stdout.readline().split() for program in programs if program.stdout is not None]
    for program in programs:
        program.communicate("\n", timeout=30.0)

    assert len({port for ports in (*named, map(str, free_ports(HALF))) for port in ports}) == 5 * HALF


def test_a_fork_has_a_block_of_its_own() -> None:
    """It would go on with the ports of its parent otherwise."""
    free_port()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(free_port()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        theirs = int(told.read())
    os.waitpid(child, 0)

    assert (theirs - LOWEST) // BLOCK != (free_port() - LOWEST) // BLOCK


def test_one_that_is_listened_on_is_passed_over() -> None:
    """Rounds later it is still taken."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()

        assert server.getsockname()[1] not in {free_port() for _ in range(2 * BLOCK)}


def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how many there are."""
    with pytest.raises(UsageError, match=f"{BLOCK} free ports are needed"):
        free_ports(BLOCK)

    monkeypatch.setattr(os, "getpid", lambda: 0)
    monkeypatch.setattr(freeports, "BEYOND", LOWEST)
    with pytest.raises(UsageError, match="no block"):
        free_port()
