"""Where a package of the distribution cannot be had, that is said, with what to do instead; nothing is skipped."""

import shutil
import subprocess
from typing import Any

import pytest

from worker.adapters import aptpackage
from worker.core.errors import UsageError

ADVICE = "install Debian's package chromium"


def failing(command: list[str], **_: Any) -> None:
    """apt-get without a network."""
    raise subprocess.CalledProcessError(100, command)


def test_a_machine_without_apt_get_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution, or a person without rights."""
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(UsageError, match=f"chromium is not installed: {ADVICE}"):
        aptpackage.install("chromium", otherwise=ADVICE)


def test_an_installation_that_fails_says_so_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What apt-get said is above it."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", failing)

    with pytest.raises(UsageError, match=rf"apt-get could not install chromium \(exit code 100\): {ADVICE}"):
        aptpackage.install("chromium", otherwise=ADVICE)
    assert "installing it with apt-get" in capsys.readouterr().err
