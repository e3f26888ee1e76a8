"""Which RabbitMQ the tests run on, and how a newer one is laid out: once, whole or not at all, loud when missing."""

import os
from pathlib import Path
from threading import Thread

import pytest

from tests.support import debiantree, generation
from tests.support.debiantree import Archive, DebianTree, Unavailable
from worker.adapters.brokerinstallation import LocalPackage
from worker.core.errors import UsageError

TREE = DebianTree(suite="forky", include=("some-package",))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, on a machine that could use it."""
    monkeypatch.setenv(debiantree.CACHE, str(tmp_path))
    monkeypatch.setattr(debiantree, "_require_root", lambda: None)
    monkeypatch.setattr(debiantree, "_ensure_debootstrap", lambda: None)
    monkeypatch.setattr(debiantree, "machine_archive", lambda: Archive(mirror="http://mirror", keyring="keys"))
    return tmp_path


def _target(command: list[str]) -> Path:
    return Path(command[-3])


def test_the_local_package_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others are named as not run."""
    monkeypatch.delenv(generation.VARIABLE, raising=False)

    assert isinstance(generation.chosen(), LocalPackage)
    assert generation.not_run() == ("4.0", "4.3")


def test_an_unknown_generation_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error must not run the suite on something else."""
    monkeypatch.setenv(generation.VARIABLE, "4.33")

    with pytest.raises(UsageError, match=r"ORDER_WORKER_TEST_RABBITMQ.*4\.33.*local, 4\.0, 4\.3"):
        generation.name()


def test_what_cannot_be_had_is_said_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, which generation, and why."""
    monkeypatch.setenv(debiantree.CACHE, str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert generation.main(["4.3"]) == 1
    told = capsys.readouterr().err
    assert "RabbitMQ 4.3 CANNOT BE HAD HERE" in told
    assert "need root" in told


def test_a_tree_is_laid_out_once_however_many_ask(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who come while it is made wait for it."""
    built: list[Path] = []

    def debootstrap(command: list[str], **_: object) -> str:
        (_target(command) / "etc").mkdir()
        built.append(_target(command))
        return ""

    monkeypatch.setattr(debiantree, "_run", debootstrap)
    askers = [Thread(target=TREE.ensure) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(10.0)

    assert len(built) == 1
    assert (TREE.ensure() / "etc/hosts").read_text() == Path("/etc/hosts").read_text()
    assert (TREE.ensure() / "usr/sbin/policy-rc.d").read_text().endswith("exit 101\n")


def test_a_build_that_fails_leaves_nothing_that_looks_like_a_tree(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run tries again."""

    def debootstrap(command: list[str], **_: object) -> str:
        (_target(command) / "half").mkdir()
        raise Unavailable("the mirror went away")

    monkeypatch.setattr(debiantree, "_run", debootstrap)

    with pytest.raises(Unavailable, match="mirror went away"):
        TREE.ensure()
    assert [entry.name for entry in cache.iterdir() if entry.is_dir()] == []


def test_the_archive_is_the_machines_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that apt knows, Debian's main archive, with the keys that its entry names."""
    sources = tmp_path / "debian.sources"
    sources.write_text("Types: deb\nURIs: mirror+file:/own/debian\nSigned-By: /keys/own.gpg\n")
    listed = f"Other|mirror+file:/other|{sources}:1\nDebian|mirror+file:/own/debian-security|{sources}:2\n"
    monkeypatch.setattr(debiantree, "_run", lambda _: f"{listed}Debian|mirror+file:/own/debian|{sources}:1\n")

    assert debiantree.machine_archive() == Archive(mirror="mirror+file:/own/debian", keyring="/keys/own.gpg")


def test_a_machine_without_debians_archive_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its package lists were fetched once."""
    asked: list[list[str]] = []

    def no_lists(command: list[str]) -> str:
        asked.append(command)
        return ""

    monkeypatch.setattr(debiantree, "_run", no_lists)

    with pytest.raises(Unavailable, match="no Debian archive"):
        debiantree.machine_archive()
    assert [command[1] for command in asked] == ["indextargets", "update", "indextargets"]
