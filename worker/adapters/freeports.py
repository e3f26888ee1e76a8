"""Ports for servers that are started later, by a program that has to be told its port.

Whoever lets the system choose a port, closes it and hands it on has a race: systems take the near ends of outgoing
connections from the same range (Linux from 32768 up, ``net.ipv4.ip_local_port_range``; others from 49152), so a connect
may have it before the server does. Below that range only servers take ports. Of these, each process has a block of its
own, so that two that run at a time never name the same one.
"""

import os
import random
import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from typing import Final

from worker.core.errors import UsageError

LOWEST: Final = 10_240
BEYOND: Final = 32_768
BLOCK: Final = 128
"""More than what one process has in use at a time; the rounds through it are long enough for a port to rest."""

_HOST: Final = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free, and stay so until they are listened on; no two are equal.

    Raises UsageError where there are not as many.
    """
    candidates = islice(_ports_of(os.getpid()), BLOCK - 1)
    found = list(islice(filter(_is_free, candidates), count))
    if len(found) < count:
        raise UsageError(f"{count} free ports are needed, and of those of this process {len(found)} are")
    return found


def free_port() -> int:
    """One of these."""
    return free_ports(1)[0]


@cache
def _ports_of(pid: int) -> Iterator[int]:
    """Those of this process, over and over; a fork has a block of its own.

    A block is its process's for as long as that lives: its first port is bound, and not listened on.
    """
    firsts = list(range(LOWEST, BEYOND, BLOCK))
    random.shuffle(firsts)  # so that who starts at the same moment seldom asks for the same
    for first in firsts:
        mark = socket.socket()
        try:
            mark.bind((_HOST, first))
        except OSError:
            mark.close()
            continue
        mark.detach()  # nobody is to close it, and nobody to complain of that
        return cycle(range(first + 1, first + BLOCK))
    raise UsageError(f"no block of {BLOCK} ports from {LOWEST} to {BEYOND - 1} is free on {_HOST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True
