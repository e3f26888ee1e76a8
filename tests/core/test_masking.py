"""Masking: what is hidden, and what stays readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.masking import is_secret_key, mask_text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://user:pa@host:5672/v", "amqp://user:***@host:5672/v"),
        ("amqp://user:p/a#s@s@host/", "amqp://user:***@host/"),
        ("amqp://u:a@one,amqps://v:b@two", "amqp://u:***@one,amqps://v:***@two"),
        ("to amqp://host:5672/ failed, ask admin@host", "to amqp://host:5672/ failed, ask admin@host"),
        ("Authorization: Bearer abc.DEF-1", "Authorization: Bearer ***"),
        ('{"access_token": "abc def", "n": 1}', '{"access_token": ***, "n": 1}'),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': ***}"),
        (r'"{\"client_secret\":\"abc\"}"', r'"{\"client_secret\":***}"'),
        ("client_id=me&client_secret=abc&scope=x", "client_id=me&client_secret=***&scope=x"),
        ("the token endpoint refuses the client", "the token endpoint refuses the client"),
    ],
)
def test_secrets_in_texts_are_hidden(text: str, masked: str) -> None:
    """The rest of the text stays as it is."""
    assert mask_text(text) == masked


def test_known_secrets_are_hidden_wherever_they_are() -> None:
    """No pattern is needed for what is known."""
    assert mask_text("x hunter2y", ["hunter2"]) == "x ***y"


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Z", "Cc"], exclude_characters="@"), min_size=8).filter(
        lambda text: "://" not in text
    )
)
def test_no_password_of_an_address_survives(password: str) -> None:
    """Whatever characters it has, encoded or not."""
    assert password not in mask_text(f"cannot reach amqp://user:{password}@host/vhost now").replace("***", "")


@pytest.mark.parametrize("key", ["token", "access_token", "Authorization", "client_secret", "amqp-password", "Cookie"])
def test_names_of_secrets_are_known(key: str) -> None:
    """Their values are never shown."""
    assert is_secret_key(key)


@pytest.mark.parametrize("key", ["token_age_s", "order_id", "tokens"])
def test_names_about_secrets_are_not_secret(key: str) -> None:
    """Ages and counts help."""
    assert not is_secret_key(key)
