"""Fixtures that several modules share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.console.guarded import Guarded, guarded_at


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    """Kim operates, Vic only looks."""
    async with guarded_at(tmp_path) as found:
        yield found
