"""Which event loop is taken: uvloop is an extra, and one that is too old is none."""

import asyncio
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import uvloop

from worker import eventloop
from worker.core.errors import UsageError
from worker.core.settings import EventLoop
from worker.eventloop import loop_factory


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str) -> None:
    """Have another version of uvloop found first, as far as its metadata go."""
    metadata = folder / f"uvloop-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: uvloop\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))


def uninstall(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(eventloop, "version", version)


@pytest.mark.parametrize("wanted", [EventLoop.AUTO, EventLoop.UVLOOP])
def test_uvloop_is_taken_where_it_is_installed(wanted: EventLoop) -> None:
    """By itself, and by name."""
    assert loop_factory(wanted) is uvloop.new_event_loop


def test_asyncios_own_is_taken_by_name() -> None:
    """To measure with and without."""
    factory = loop_factory(EventLoop.ASYNCIO)
    with asyncio.Runner(loop_factory=factory) as runner:
        assert not isinstance(runner.get_loop(), uvloop.Loop)


def test_without_uvloop_it_is_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is never needed; who asks for it by name hears what to install."""
    uninstall(monkeypatch)

    assert loop_factory(EventLoop.AUTO) is None
    with pytest.raises(UsageError, match="EVENT_LOOP: uvloop is not installed; install the extra `uvloop`"):
        loop_factory(EventLoop.UVLOOP)


@pytest.mark.parametrize("version", ["0.22.1", "0.9rc1"])
def test_one_that_is_too_old_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str) -> None:
    """It might close connections that are not its own."""
    install(monkeypatch, tmp_path, version)

    assert loop_factory(EventLoop.AUTO) is None
    with pytest.raises(UsageError, match="uvloop is too old"):
        loop_factory(EventLoop.UVLOOP)


@pytest.mark.parametrize("version", ["0.23.0", "0.100.dev1", "1.0rc1", "2"])
def test_newer_ones_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str) -> None:
    """Numbers are compared as numbers."""
    install(monkeypatch, tmp_path, version)

    assert loop_factory(EventLoop.AUTO) is uvloop.new_event_loop
