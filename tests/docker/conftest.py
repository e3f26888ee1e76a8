"""The image of the longer tests, built once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.image import Image, ImageBuilder


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """The image with labels of its own (about two minutes, and one more where the base is not laid out yet)."""
    with ImageBuilder(VERSION="1.2.3", REVISION="abc", CREATED="2026-11-22T00:00:00Z") as builder:
        yield builder.build()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What is mounted as its working folder, and given to its user."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def closed(home: Path) -> Path:
    """A working folder that cannot be written to."""
    home.chmod(0o500)
    return home
