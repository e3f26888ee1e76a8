"""npm packages that tests use, pinned by name and hash in a ``package-lock.json`` and laid out once in the cache folder
by ``npm ci``; no script of theirs runs at that. npm is installed as Debian packages it where it is missing.
"""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.debiantree import cache_folder
from worker.adapters.aptpackage import install

DEADLINE_S: Final = 300.0
PINS: Final = ("package.json", "package-lock.json")
_INSTALL: Final = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
_ADVICE: Final = "install Node.js 18 or newer with npm (Debian: npm brings both), and let npm reach its registry once"


class CannotInstall(Exception):
    """Node.js, npm or the packages cannot be had; the text says why and what to do."""


def laid_out(source: Path, *more: str) -> Path:
    """A folder with the packages that ``source`` pins, and copies of its other files (``more``); made where it is
    missing. Blocks while another process makes it. Raises CannotInstall."""
    files = (*PINS, *more)
    content = b"".join((source / name).read_bytes() for name in files)
    folder = cache_folder() / f"{source.name}-{hashlib.sha256(content).hexdigest()[:16]}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shutil.which("npm") is None:
            install("npm", otherwise=_ADVICE)
        if not folder.is_dir():
            _lay_out(source, files, folder)
    return folder


def _lay_out(source: Path, files: Sequence[str], folder: Path) -> None:
    building = Path(tempfile.mkdtemp(prefix=f"building-{source.name}-", dir=folder.parent))
    try:
        for name in files:
            shutil.copy(source / name, building / name)
        run(_INSTALL, building)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def run(command: Sequence[str], folder: Path, *, given: str = "") -> str:
    """What a program of Node.js printed. Raises CannotInstall where it is missing, fails, or takes too long."""
    try:
        done = subprocess.run(
            command, cwd=folder, input=given, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    except FileNotFoundError:
        raise CannotInstall(f"{command[0]} is missing: {_ADVICE}") from None
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"{command[0]} took longer than {DEADLINE_S:.0f} s: {_ADVICE}") from None
    if done.returncode != 0:
        raise CannotInstall(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-2000:]}\n{_ADVICE}")
    return done.stdout
