"""``ALLOW_ORDERS`` and ``OTHERS``: what they may say, alone and together."""

import pytest

from worker.config import PREFIX, Settings
from worker.core.errors import UsageError
from worker.core.settings import Others
from worker.loading import load_settings


def settings(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    """The settings with these variables set."""
    for name, value in values.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)
    return load_settings()


def test_without_a_list_all_orders_may_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The everyday case: nothing to refuse."""
    every = settings(monkeypatch, ALLOW_ORDERS="")
    every.require_consumable()

    assert every.event.allowed is None


def test_a_list_alone_lets_nothing_be_consumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to wait in the queue must not be taken out of it; the text says what to do instead."""
    waiting = settings(monkeypatch, ALLOW_ORDERS="46140199")

    with pytest.raises(UsageError) as refused:
        waiting.require_consumable()
    assert "nothing was consumed" in str(refused.value)
    assert "OTHERS=dead-letter" in str(refused.value)
    assert "--dry-run" in str(refused.value)


def test_a_list_and_a_place_for_the_others_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids between commas, blanks do not matter; the choice is compared without case."""
    chosen = settings(monkeypatch, ALLOW_ORDERS="46140199, 7,", OTHERS="Dead-Letter")
    chosen.require_consumable()

    assert chosen.event.allowed == frozenset({46140199, 7})
    assert chosen.others is Others.DEAD_LETTER


@pytest.mark.parametrize("ids", ["x", "0", "-1", "1;2", "9223372036854775808"])
def test_what_is_no_order_id_is_refused(ids: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in the list is no smaller list."""
    with pytest.raises(UsageError, match="ORDER_WORKER_ALLOW_ORDERS"):
        settings(monkeypatch, ALLOW_ORDERS=ids, OTHERS="dead-letter")


def test_a_place_for_others_without_a_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that got lost on its way here must not let every order out."""
    with pytest.raises(UsageError, match="ORDER_WORKER_ALLOW_ORDERS, ORDER_WORKER_OTHERS"):
        settings(monkeypatch, OTHERS="dead-letter")
