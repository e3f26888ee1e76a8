"""Checks resources of KEDA and Prometheus' operator against those projects' own types, as npm packages carry them.

The packages are generated from the Go types that the CRDs are generated from, too. They are pinned by name and hash in
``crdmodels/package-lock.json`` and laid out once in the cache folder by ``npm ci``; no script of theirs runs at that.
The check itself (``crdmodels/check.mjs``) runs in Node.js.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.support.debiantree import cache_folder
from worker.adapters.aptpackage import install

DEADLINE_S: Final = 300.0
_SOURCE: Final = Path(__file__).with_suffix("")
_FILES: Final = ("package.json", "package-lock.json", "check.mjs")
_INSTALL: Final = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
_ADVICE: Final = "install Node.js 18 or newer with npm (Debian: npm brings both), and let npm reach its registry once"


class CannotCheck(Exception):
    """Node.js, npm or the packages cannot be had; the text says why and what to do."""


def problems(resources: list[dict[str, Any]]) -> list[str]:
    """What is wrong with these custom resources, a line each. Raises CannotCheck."""
    checker = _installed() / "check.mjs"
    return [str(line) for line in json.loads(_run(["node", str(checker)], checker.parent, given=json.dumps(resources)))]


def _installed() -> Path:
    """The folder with the packages of the lock; made where it is missing, as npm is. Blocks while another process makes
    it."""
    content = b"".join((_SOURCE / name).read_bytes() for name in _FILES)
    folder = cache_folder() / f"crdmodels-{hashlib.sha256(content).hexdigest()[:16]}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shutil.which("npm") is None:
            install("npm", otherwise=_ADVICE)
        if not folder.is_dir():
            _install(folder)
    return folder


def _install(folder: Path) -> None:
    building = Path(tempfile.mkdtemp(prefix="building-crdmodels-", dir=folder.parent))
    try:
        for name in _FILES:
            shutil.copy(_SOURCE / name, building / name)
        _run(list(_INSTALL), building)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _run(command: list[str], folder: Path, *, given: str = "") -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, input=given, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
    except FileNotFoundError:
        raise CannotCheck(f"{command[0]} is missing: {_ADVICE}") from None
    except subprocess.TimeoutExpired:
        raise CannotCheck(f"{command[0]} took longer than {DEADLINE_S:.0f} s: {_ADVICE}") from None
    if done.returncode != 0:
        raise CannotCheck(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-2000:]}\n{_ADVICE}")
    return done.stdout
