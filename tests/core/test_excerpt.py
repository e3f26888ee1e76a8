"""Foreign text made fit for people: always short, always on one line, never with a secret."""

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.excerpt import EXCERPT_CHARS, excerpt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Invalid order status", "Invalid order status"),
        ("  two\n\tlines\x1b[31m \x00 ", "two lines [31m"),
        ("<h1 class='x'>Bad</h1><p>Gateway", "Bad Gateway"),
        ("missing scope order-it.order-manager.edit", "missing scope order-it.order-manager.edit"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("write to anna+x@mail.example.co.uk, please", "write to ***, please"),
        ("key 0123456789abcdef0123456789abcdef end", "key *** end"),
        ("order 46140199 is unknown", "order 46140199 is unknown"),
        ("x y" * 200, ("x y" * 200)[:199] + "…"),
    ],
)
def test_text_keeps_its_words_and_loses_the_rest(text: str, expected: str) -> None:
    """Numbers and words that people need stay; markup, control characters, addresses and tokens go."""
    assert excerpt(text) == expected


@pytest.mark.parametrize("text", ["a b/c+d", "a%20b/c%2Bd", "a%20b%2Fc%2Bd", "a+b%2Fc%2Bd", "a b\\/c+d"])
def test_secret_is_recognised_in_every_spelling(text: str) -> None:
    """URL, form and JSON spellings of a secret are that secret."""
    assert excerpt(f"[{text}]", secrets=["a b/c+d"]) == "[***]"


@given(st.text(max_size=400), st.integers(2, 300))
def test_excerpt_is_short_and_on_one_line(text: str, limit: int) -> None:
    """Whatever comes in."""
    line = excerpt(text, limit=limit)

    assert len(line) <= limit
    assert line.isprintable()


@given(st.text("ab &/+", max_size=9000), st.text("cdeé&/+ ", min_size=4, max_size=20), st.text("ab ", max_size=20))
def test_secret_never_shows(before: str, secret: str, after: str) -> None:
    """Not at the beginning, not at the end, and not cut in half by a limit."""
    line = excerpt(f"{before}{secret}{after}{quote_plus(secret)}", secrets=[secret])

    assert len(line) <= EXCERPT_CHARS
    assert secret not in line


@pytest.mark.parametrize("filler", ["<" + "p" * 98 + ">", "y" * 64 + " "])
def test_secret_cut_by_the_window_does_not_show(filler: str) -> None:
    """When everything before it is removed, the half of a secret at the end of the part that is read goes as well."""
    for shift in range(0, 40, 3):
        text = (filler * 100)[: 8192 - shift] + "SECRET-SECRET-SECRET" + "x" * 100

        assert "SEC" not in excerpt(text, secrets=["SECRET-SECRET-SECRET"])
