"""Builds the image of docker/Dockerfile where no Docker daemon is: with buildah, in a folder of the test's own.

Its base, `python:3.11-slim-bookworm`, comes from a registry elsewhere. Here a Debian 12 with its own Python takes that
name, laid out by debootstrap. RUN steps are isolated by chroot, and layers are plain folders (vfs), so neither a daemon
nor a mount has to be had; root has. Packages come through the ordinary pip, by way of this machine's certificates and
index, and their hashes are checked as anywhere.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.debiantree import DebianTree
from worker.adapters.aptpackage import install

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "docker" / "Dockerfile"
BASE: Final = "docker.io/library/python:3.11-slim-bookworm"
NAME: Final = "order-update-worker"
BASE_PACKAGES: Final = ("ca-certificates", "python3", "python3-pip", "python3-venv")
DEADLINE_S: Final = 600.0
_CERTIFICATES: Final = Path("/etc/ssl/certs")
_INDEX: Final = "PIP_INDEX_URL"
_ON_PATH: Final = "usr/bin/python"
"""Debian names its program python3 only; the image that we stand in for has both names."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Image:
    """A built image: its files, and its configuration as Docker keeps it."""

    root: Path
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """What every process of it finds in its environment."""
        return dict(entry.split("=", 1) for entry in self.config["Env"])

    @property
    def user(self) -> tuple[int, int]:
        """User and group that it runs as."""
        user, group = self.config["User"].split(":")
        return int(user), int(group)


class ImageBuilder:
    """Keeps everything in a temporary folder, which is gone afterwards. Its methods block (minutes)."""

    def __init__(self, **arguments: str) -> None:
        self._arguments = arguments
        self._folder = Path()

    def __enter__(self) -> Self:
        _ensure_buildah()
        self._folder = Path(tempfile.mkdtemp(prefix="order-worker-image-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder)

    def build(self) -> Image:
        """Build it as the Dockerfile says. AssertionError has the last words of what failed."""
        self._make_base()
        volumes = (f"{_CERTIFICATES}:{_CERTIFICATES}:ro", f"{self._pip_settings()}:/etc/pip.conf:ro")
        self._buildah(
            *("build", "--isolation=chroot", "--format=docker", "--pull-never", f"--file={DOCKERFILE}"),
            *(f"--volume={volume}" for volume in volumes),
            *(f"--build-arg={name}={value}" for name, value in self._arguments.items()),
            *(f"--tag={NAME}", str(ROOT)),
        )
        described = json.loads(self._buildah("inspect", "--type=image", NAME))
        return Image(root=self._unpacked(NAME), config=described["Docker"]["config"])

    def _make_base(self) -> None:
        """Debian's Python under the name that the Dockerfile asks for."""
        tree = DebianTree(suite="bookworm", include=BASE_PACKAGES).ensure()
        container = self._buildah("from", "scratch").strip()
        root = Path(self._buildah("mount", container).strip())
        subprocess.run(["cp", "--archive", f"{tree}/.", str(root)], check=True, timeout=DEADLINE_S)
        (root / _ON_PATH).symlink_to("python3")
        self._buildah("commit", "--quiet", "--rm", container, BASE)

    def _unpacked(self, name: str) -> Path:
        container = self._buildah("from", "--pull-never", name).strip()
        return Path(self._buildah("mount", container).strip())

    def _pip_settings(self) -> Path:
        """This machine's index, where it has one of its own; the certificates are those it trusts."""
        lines = ["[global]", f"cert = {_CERTIFICATES / 'ca-certificates.crt'}"]
        if index := os.environ.get(_INDEX):
            lines.append(f"{_option(_INDEX)} = {index}")
        settings = self._folder / "pip.conf"
        settings.write_text("\n".join([*lines, ""]))
        return settings

    def _buildah(self, *arguments: str) -> str:
        """Run it, and return what it printed."""
        own = [f"--root={self._folder / 'storage'}", f"--runroot={self._folder / 'run'}", "--storage-driver=vfs"]
        done = subprocess.run(
            ["buildah", *own, *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        words = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        assert done.returncode == 0, f"buildah {arguments[0]} failed:\n{words}"
        return done.stdout


def _option(variable: str) -> str:
    """pip's rule: what a variable of the environment is called in a file."""
    return variable.removeprefix("PIP_").lower().replace("_", "-")


def _ensure_buildah() -> None:
    """Install it where it is missing. UsageError or AssertionError says what is."""
    assert os.geteuid() == 0, "building the image needs root (debootstrap, chroot)"
    if shutil.which("buildah") is None:
        install("buildah", otherwise="install Debian's package buildah")
