"""One client's connection, as a call of it sees it: is the client still there, and how to cut it off."""

import os
import socket
import struct

from aiohttp import web

_LINGER_RESET = struct.pack("ii", 1, 0)


class Connection:
    """The TCP connection that a request came on."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request

    @property
    def is_open(self) -> bool:
        """False as soon as the client closed it, also when the event loop has not been told yet.

        Clients that gave a call up and sent the next one at once would otherwise look as if two calls of one order
        were in flight: the end of the old connection and the new call arrive in the same turn of the loop.
        """
        transport = self._request.transport
        if transport is None or self.is_lost:
            return False
        return not _peer_has_left(transport.get_extra_info("socket").fileno())

    @property
    def is_lost(self) -> bool:
        """Whether the event loop knows that the connection is gone: cheaper than ``is_open``, and later."""
        return self._request.transport is None or self._request.transport.is_closing()

    def cut(self) -> None:
        """Reset the connection: the client sees ECONNRESET, without an answer."""
        transport = self._request.transport
        if transport is None or self.is_lost:
            return
        # Lingering for 0 seconds makes the kernel send RST instead of an orderly FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        transport.abort()


def _peer_has_left(fileno: int) -> bool:
    with socket.socket(fileno=os.dup(fileno)) as peeked:
        try:
            return peeked.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
