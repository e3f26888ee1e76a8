"""Which echoes a call owes (``core/bookkeeping.py``)."""

import pytest

from worker.core.bookkeeping import outcome_of
from worker.core.journal import LATE_S, Claim, OrderRow, StoredOrder, claimed, recorded
from worker.core.model import Version

EXPIRES = 1_000_000_000
LATE_US = round(LATE_S * 1_000_000)
ALONE = OrderRow(values={}, revision=1, expires_us=EXPIRES)
SECOND = OrderRow(values={}, revision=2, expires_us=EXPIRES, standing=Claim("a", EXPIRES - 5))


def test_a_call_that_was_alone_and_in_time_owes_nothing() -> None:
    """Known before its claim expired, or so early given up that it is executed before that at the latest."""
    assert outcome_of(ALONE, applied={}, known=True, wall_us=EXPIRES).echo_us is None
    assert outcome_of(ALONE, applied={}, known=False, wall_us=EXPIRES - LATE_US).echo_us is None


@pytest.mark.parametrize(("known", "until"), [(True, EXPIRES + 1), (False, EXPIRES + 1 + LATE_US)])
def test_a_call_that_outlives_its_claim_owes_an_echo(known: bool, until: int) -> None:
    """Whoever saw the claim may have sent its echo when that expired: it was too early."""
    assert outcome_of(ALONE, applied={}, known=known, wall_us=EXPIRES + 1).echo_us == until
    assert outcome_of(SECOND, applied={}, known=known, wall_us=EXPIRES + 1).echo_us == until


def test_a_call_in_time_owes_the_echo_of_the_claim_it_found() -> None:
    """Due when that one has expired."""
    assert outcome_of(SECOND, applied={}, known=True, wall_us=EXPIRES).echo_us == EXPIRES - 5


def test_an_echo_that_outlives_its_claim_is_owed_anew() -> None:
    """Its values may be older than what another worker has sent meanwhile."""
    row = OrderRow(values={}, revision=2, expires_us=EXPIRES, echo_us=EXPIRES - 9)
    outcome = outcome_of(row, applied={}, known=True, wall_us=EXPIRES + 1, echoed_at_us=EXPIRES - 9)

    assert (outcome.echoed_us, outcome.echo_us) == (EXPIRES - 9, EXPIRES + 1)


def test_a_worker_that_was_frozen_before_its_call_makes_up_for_it() -> None:
    """It claims and freezes; another one applies more, and sends its echo; then it wakes up and sends what is old."""
    old, new = ({"status": (Version(number, -1, number, ""), number)} for number in (1, 2))
    stored, frozen = claimed(StoredOrder(), Claim("a", 45))
    stored, row = claimed(stored, Claim("b", 55))
    stored = recorded(stored, outcome_of(row, applied=new, known=True, wall_us=11))
    stored, row = claimed(stored, Claim("b", 95))
    stored = recorded(stored, outcome_of(row, applied={}, known=True, wall_us=51, echoed_at_us=50))
    assert (stored.claim, stored.echo_us) == (None, None)

    stored = recorded(stored, outcome_of(frozen, applied=old, known=True, wall_us=101))

    assert (stored.values, stored.echo_us) == (new, 101)
