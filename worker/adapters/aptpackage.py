"""Installing a package of the distribution, without its service being started."""

import os
import shutil
import subprocess
import sys

from worker.core.errors import UsageError

# One at a time: apt-get gives up at once where another one is at work. The lock is on the folder, so that it leaves no
# file behind, and is not the one that apt-get itself takes.
# Debian's way of keeping a freshly installed service from being started is a policy-rc.d that says no.
_INSTALL = """set -e
exec 9</var/lib/apt/lists
flock 9
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\\nexit 101\\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends "$1"
"""


def install(package: str, *, otherwise: str) -> None:
    """Install it with apt-get, and say so on stderr. UsageError where that is not possible (``otherwise`` says what to
    do then) or fails."""
    as_root = [] if os.geteuid() == 0 else [path] if (path := shutil.which("sudo")) else None
    if shutil.which("apt-get") is None or as_root is None:
        raise UsageError(f"{package} is not installed: {otherwise}")
    # Promised to the person at the terminal: the program says so before it installs anything.
    sys.stderr.write(f"{package} is missing: installing it with apt-get (it is not started as a service)\n")
    try:
        # stdout belongs to the program that asked; a person sees the progress on stderr.
        subprocess.run([*as_root, "sh", "-c", _INSTALL, "sh", package], check=True, stdout=sys.stderr)  # noqa: S603
    except subprocess.CalledProcessError as error:
        raise UsageError(f"apt-get could not install {package} (exit code {error.returncode}): {otherwise}") from error
