"""A file tree of another Debian release, laid out once by debootstrap in a cache folder and used as it is."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CACHE: Final = "ORDER_WORKER_TEST_CACHE"
"""The variable that names the cache folder; default: order-update-worker in $XDG_CACHE_HOME or ~/.cache."""
BUILD_DEADLINE_S: Final = 900.0
_NEEDED: Final = ("apt-get", "unshare", "chroot", "mount")
_SCRIPTS: Final = Path("/usr/share/debootstrap/scripts")
_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_NO_SERVICES: Final = "#!/bin/sh\nexit 101\n"
# Namespaces of its own: what debootstrap mounts goes with it, and so does any process a package's script starts.
_ISOLATED: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


class Unavailable(Exception):
    """The tree cannot be had on this machine; the text says why."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Archive:
    """Where this machine has its own packages from, and the keys they are signed with."""

    mirror: str
    keyring: str


@dataclass(slots=True, frozen=True, kw_only=True)
class DebianTree:
    """The minimal system of ``suite`` with the packages of ``include``."""

    suite: str
    include: tuple[str, ...]

    def ensure(self) -> Path:
        """The tree's root. Blocks while it is made, by us or by another process. Raises Unavailable."""
        root = cache_folder() / "-".join((self.suite, *self.include))
        if root.is_dir():
            return root
        _require_root()
        with _locked(root.with_suffix(".lock")):
            if not root.is_dir():
                self._build(root)
        return root

    def _build(self, root: Path) -> None:
        sys.stderr.write(f"laying out Debian {self.suite} with {', '.join(self.include)} in {root} (about a minute)\n")
        _ensure_debootstrap()
        archive = machine_archive()
        building = Path(tempfile.mkdtemp(prefix=f"building-{self.suite}-", dir=root.parent))
        try:
            _refuse_services(building)
            _run([*_ISOLATED, *self._debootstrap(building, archive)], log=root.with_suffix(".log"))
            shutil.copy("/etc/hosts", building / "etc/hosts")  # node names are at localhost
            # apt's copies of what is installed already: a third of the size.
            shutil.rmtree(building / "var/cache/apt", ignore_errors=True)
            building.chmod(0o755)
            building.rename(root)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise

    def _debootstrap(self, root: Path, archive: Archive) -> list[str]:
        # A release younger than the debootstrap of this machine has no script there; all later ones are sid's.
        script = _SCRIPTS / self.suite if (_SCRIPTS / self.suite).exists() else _SCRIPTS / "sid"
        options = ["--variant=minbase", f"--include={','.join(self.include)}", f"--keyring={archive.keyring}"]
        return ["debootstrap", *options, self.suite, str(root), archive.mirror, str(script)]


def cache_folder() -> Path:
    """Where trees are kept between runs; made where it is missing."""
    named = os.environ.get(CACHE)
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "order-update-worker"
    folder = Path(named) if named else usual
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def machine_archive() -> Archive:
    """The Debian archive of this machine's own apt configuration. Raises Unavailable where it has none."""
    for again in (False, True):
        if again:  # apt tells origins from its package lists, which a fresh machine does not have
            _run(["apt-get", "update", "-q"])
        fields = "$(ORIGIN)|$(SITE)|$(SOURCESENTRY)"
        listed = _run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])
        for line in listed.splitlines():
            origin, site, entry = line.split("|")
            if origin == "Debian" and "security" not in site:
                return Archive(mirror=site, keyring=_keyring(Path(entry.rpartition(":")[0])))
    raise Unavailable("apt has no Debian archive configured")


def _keyring(sources: Path) -> str:
    """What the apt source says it is signed by, else Debian's own."""
    named = re.search(r"signed-by\s*[:=]\s*(/[^\s\],]+)", sources.read_text(), re.IGNORECASE)
    return named[1] if named else _KEYRING


def _require_root() -> None:
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing:
        raise Unavailable(f"{', '.join(missing)} not found")
    if os.geteuid() != 0:
        raise Unavailable("debootstrap and chroot need root")


def _ensure_debootstrap() -> None:
    if shutil.which("debootstrap") is None:
        sys.stderr.write("debootstrap is missing: installing it with apt-get\n")
        _run(["apt-get", "update", "-q"])
        _run(["apt-get", "install", "-qy", "--no-install-recommends", "debootstrap"])


def _refuse_services(root: Path) -> None:
    """Debian's way of keeping packages from starting services: a policy-rc.d that says no."""
    policy = root / "usr/sbin/policy-rc.d"
    policy.parent.mkdir(parents=True)
    policy.write_text(_NO_SERVICES)
    policy.chmod(0o755)


def _run(command: list[str], *, log: Path | None = None) -> str:
    """What it printed. Raises Unavailable with its last words."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BUILD_DEADLINE_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took longer than {BUILD_DEADLINE_S:.0f} s") from None
    if log is not None:
        log.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        words = " | ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
        raise Unavailable(f"{' '.join(command[:2])} failed: {words}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file; it ends with us, however we end."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
