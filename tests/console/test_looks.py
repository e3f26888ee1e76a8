"""What the style sheet has to keep to: contrast by WCAG AA in both modes, and nothing from elsewhere."""

import re
from importlib.resources import files
from itertools import product

import pytest

STATIC = files("worker.console").joinpath("static")
CSS = STATIC.joinpath("console.css").read_text(encoding="utf-8")
AA, AA_BORDERS = 4.5, 3.0
LIGHT, DARK = re.findall(r":root \{(.*?)\n\s*\}", CSS, re.DOTALL)[:2]
TONES = ("good", "warn", "bad", "idle", "live")
PAIRS = (
    *product(("ink", "quiet", "accent", "good", "warn", "bad"), ("panel", "bg")),
    *((tone, f"{tone}-soft") for tone in TONES),
    ("accent", "accent-soft"),
    ("on-accent", "accent"),
    ("panel", "bad"),
)


def colours(block: str) -> dict[str, str]:
    """The colours of a mode, by name."""
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    """WCAG 2, relative luminance."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2, contrast ratio."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("mode", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("pair", PAIRS, ids="-on-".join)
def test_words_can_be_read(mode: str, pair: tuple[str, str]) -> None:
    """WCAG 1.4.3: 4.5 to 1."""
    known = colours(mode)

    assert contrast(known[pair[0]], known[pair[1]]) >= AA


@pytest.mark.parametrize("mode", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["field", "accent"])
def test_borders_of_fields_and_the_focus_can_be_seen(mode: str, name: str) -> None:
    """WCAG 1.4.11: 3 to 1."""
    known = colours(mode)

    assert contrast(known[name], known["panel"]) >= AA_BORDERS


def test_both_modes_have_every_colour() -> None:
    """None is forgotten in the dark."""
    assert colours(LIGHT).keys() == colours(DARK).keys()


@pytest.mark.parametrize("name", ["console.css", "console.js"])
def test_nothing_comes_from_elsewhere(name: str) -> None:
    """No scripts, fonts or styles of others; the policy of the pages would refuse them."""
    text = STATIC.joinpath(name).read_text(encoding="utf-8")

    assert not re.search(r"https?://|@import|url\(|eval\(|\.setAttribute\([\"']style", text)
