"""What a call leaves in the journal for each of its orders (``core/bookkeeping.py``)."""

import pytest

from worker.core.bookkeeping import outcome_of
from worker.core.journal import LATE_S, Claim, OrderRow

ROW = OrderRow(values={}, revision=3)
SENT_US = 1_000
LATE_US = round(LATE_S * 1_000_000)


@pytest.mark.parametrize(
    ("known", "sent_us", "expected"),
    [(True, SENT_US, SENT_US), (False, SENT_US, SENT_US + LATE_US), (True, None, None)],
    ids=["answered", "no answer", "nothing sent"],
)
def test_who_is_overtaken_waits_for_as_long_as_its_own_call_may_be_executed(
    known: bool,
    sent_us: int | None,
    expected: int | None,
) -> None:
    """Not at all after an answer; as long as the platform may be late without one."""
    assert outcome_of(ROW, applied={}, known=known, sent_us=sent_us).over_us == expected


def test_whoever_found_a_claim_owes_an_echo_from_its_expiry_on() -> None:
    """The call of that claim may be executed last; an echo that went out later than that was the one."""
    row = OrderRow(values={}, revision=3, standing=Claim("other", 500), echo_us=400)

    news = outcome_of(row, applied={}, known=True, sent_us=SENT_US)
    early = outcome_of(row, applied={}, known=True, sent_us=SENT_US, echoed_at_us=450)
    late = outcome_of(row, applied={}, known=True, sent_us=SENT_US, echoed_at_us=500)

    assert (news.echo_us, news.echoed_us) == (500, None)
    assert (early.echo_us, early.echoed_us) == (500, 400)
    assert (late.echo_us, late.echoed_us) == (None, 400)
