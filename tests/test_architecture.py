"""``worker/ARCHITECTURE.md`` tells of the tree as it is."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "worker" / "ARCHITECTURE.md").read_text()


def layers() -> list[str]:
    """Of import-linter's configuration, the highest first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[str] = config["tool"]["importlinter"]["contracts"][0]["layers"]
    return found


def test_the_picture_has_the_layers_that_the_checks_hold() -> None:
    """All of them, in their order."""
    picture = PAGE.partition("flowchart TD")[2].partition("```")[0]
    drawn = [room.split(", ") for room in re.findall(r'\w\["([^"]+)"\]', picture)]

    assert drawn == [layer.split(" : ") for layer in layers()]


def test_every_file_it_names_is_there() -> None:
    """Modules are named from ``worker/``, tests from the top."""
    named = list(re.findall(r"`([\w/]+(?:\.py|/))`", PAGE))
    named += re.findall(r"`(tests/\w+)`", PAGE)

    assert len(named) > 20
    assert [name for name in named if not ((ROOT / "worker" / name).exists() or (ROOT / name).exists())] == []
