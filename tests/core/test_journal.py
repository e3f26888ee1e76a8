"""The rules of the journal's rows (``core/journal.py``)."""

from hypothesis import given
from hypothesis import strategies as st

from worker.core.journal import Claim, OrderOutcome, StoredOrder, at_rest, claimed, contested, merged, recorded
from worker.core.model import Version

versions = st.builds(Version, st.integers(0, 3), st.integers(-1, 1), st.integers(0, 2), st.sampled_from(["", "a", "b"]))
values = st.dictionaries(st.sampled_from(["status", "weight"]), st.tuples(versions, st.integers(0, 3)))
NOTHING = StoredOrder()


@given(first=values, second=values)
def test_merging_keeps_the_greater_version_of_each_field(
    first: dict[str, tuple[Version, int]], second: dict[str, tuple[Version, int]]
) -> None:
    """Whichever comes first; of equal versions the value that was there stays."""
    both = merged(first, second)

    for name in {*first, *second}:
        candidates = [each[name] for each in (first, second) if name in each]
        assert both[name] == max(candidates, key=lambda each: each[0])
    assert merged(both, first) == merged(both, second) == both


def test_every_claim_raises_the_revision_and_hands_out_the_one_before() -> None:
    """Who comes second sees the first; the first learns it when it records."""
    once, first = claimed(NOTHING, Claim("a", 50))
    twice, second = claimed(once, Claim("b", 40))

    assert (first.revision, first.standing) == (1, None)
    assert (second.revision, second.standing) == (2, Claim("a", 50))
    assert twice.claim == Claim("b", 50)
    assert contested(twice, OrderOutcome(revision=first.revision))
    assert not contested(twice, OrderOutcome(revision=second.revision))


def test_only_the_last_claimant_clears_the_claim_and_only_if_it_knows() -> None:
    """Everybody else leaves it to those who come."""
    stored, _ = claimed(NOTHING, Claim("a", 50))
    stored, row = claimed(stored, Claim("b", 60))

    assert recorded(stored, OrderOutcome(revision=row.revision)).claim is None
    assert recorded(stored, OrderOutcome(revision=row.revision, known=False)).claim == Claim("b", 60)
    assert recorded(stored, OrderOutcome(revision=row.revision - 1)).claim == Claim("b", 60)


stored_orders = st.builds(
    StoredOrder,
    values=values,
    revision=st.integers(0, 2),
    claim=st.none() | st.builds(Claim, st.just("a"), st.integers(0, 3)),
    echo_us=st.none() | st.integers(0, 3),
)
outcomes = st.builds(
    OrderOutcome,
    revision=st.integers(0, 2),
    applied=values,
    known=st.booleans(),
    echo_us=st.none() | st.integers(0, 3),
    echoed_us=st.none() | st.integers(0, 3),
)


@given(stored_orders, outcomes)
def test_a_row_at_rest_has_neither_claim_nor_echo(stored: StoredOrder, outcome: OrderOutcome) -> None:
    """Nothing of it is left but what is applied, and nobody is told that he was not alone."""
    if at_rest(stored, outcome):
        assert recorded(stored, outcome) == StoredOrder(
            values=merged(stored.values, outcome.applied), revision=stored.revision
        )
        assert not contested(stored, outcome)


def test_an_echo_is_cleared_only_by_the_call_that_was_it() -> None:
    """Of two that are owed the later one stays."""
    owed = recorded(NOTHING, OrderOutcome(revision=0, echo_us=5))

    assert recorded(owed, OrderOutcome(revision=0)).echo_us == 5
    assert recorded(owed, OrderOutcome(revision=0, echo_us=4)).echo_us == 5
    assert recorded(owed, OrderOutcome(revision=0, echoed_us=5)).echo_us is None
    assert recorded(owed, OrderOutcome(revision=0, echoed_us=5, echo_us=9)).echo_us == 9
    assert recorded(owed, OrderOutcome(revision=0, echoed_us=4)).echo_us == 5
