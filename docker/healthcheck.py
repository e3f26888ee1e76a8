"""Asks a program of this container whether it is well; exit code 0 if it answers 200, else 1 and a line that says why.

    healthcheck.py                                  the worker's /healthz
    healthcheck.py /readyz                          another path of its admin interface
    healthcheck.py http://127.0.0.1:8091/_sim/      another program

The image's HEALTHCHECK runs it every few seconds, so it has the standard library only: the command line of the worker
takes ten times as long to start. It therefore knows of the settings just ORDER_WORKER_ADMIN_HOST and _PORT, and these
from the environment alone. A worker without admin interface (port 0) counts as well.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException
from urllib.parse import urljoin, urlsplit

TIMEOUT_S = 4.0
"""Below the HEALTHCHECK's own."""
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "8080"
# Where a program that listens everywhere can be reached from the inside.
ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def main(arguments: list[str]) -> int:
    """Ask, and return the exit code."""
    if not arguments and admin_port() == "0":
        return 0
    url = urljoin(admin_address(), arguments[0] if arguments else "/healthz")
    try:
        problem = ask(url)
    except (OSError, HTTPException, ValueError) as error:
        problem = str(error) or type(error).__name__
    if problem:
        sys.stdout.write(f"{url}: {problem}\n")
    return 1 if problem else 0


def admin_address() -> str:
    """The base address of the worker's admin interface."""
    host = os.environ.get("ORDER_WORKER_ADMIN_HOST", DEFAULT_HOST)
    host = ANY_ADDRESS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{admin_port()}/"


def admin_port() -> str:
    """Its port, 0 where there is none."""
    return os.environ.get("ORDER_WORKER_ADMIN_PORT", DEFAULT_PORT).strip()


def ask(url: str) -> str:
    """What is wrong with the answer, empty if nothing. Raises OSError and HTTPException where there is none."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or DEFAULT_HOST, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        return "" if answer.status == 200 else f"answered {answer.status} {answer.read(500).decode(errors='replace')}"
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
