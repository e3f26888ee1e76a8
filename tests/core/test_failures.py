"""The header with the failures before a replay: it is read as it was written, stays small, and garbage is nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.failures import MAX_BYTES, MOST, Failure, dump_failures, load_failures

FAILURES = st.builds(
    Failure,
    reason=st.text(max_size=100),
    detail=st.text(max_size=400),
    failed_at=st.text(max_size=100),
    attempt=st.integers(1, 1_000_000),
    replay_id=st.text(max_size=100),
)


def test_what_is_written_is_read_again() -> None:
    """The newest stays last."""
    failures = (
        Failure(reason="rejected", detail="no such carrier", failed_at="2026-11-21T10:00:00.000000Z", attempt=3),
        Failure(reason="terminal-order", replay_id="r-20261122-031500-x7k2"),
    )

    assert load_failures(dump_failures(failures)) == failures


@given(st.lists(FAILURES, max_size=8))
def test_it_stays_small_and_keeps_the_latest(failures: list[Failure]) -> None:
    """At most five, at most so many bytes, and it is the oldest that goes."""
    text = dump_failures(failures)
    kept = load_failures(text)

    assert len(text.encode()) <= MAX_BYTES
    assert len(kept) <= MOST
    assert [each.attempt for each in kept] == [each.attempt for each in failures[len(failures) - len(kept) :]]
    assert dump_failures(kept) == text


def test_one_long_failure_always_fits() -> None:
    """Its texts are cut: one failure of the longest kind is still told."""
    longest = Failure(reason="ü" * 500, detail='"' * 5000, failed_at="9" * 500, replay_id="\\" * 500)

    assert len(load_failures(dump_failures([longest, longest]))) >= 1


@pytest.mark.parametrize(
    "value",
    [None, 7, "", "{", "{}", "[1]", '[{"reason":1}]', '[{"detail":"x"}]', "[" * 1000, "[" + " " * 2000 + "]", "NaN"],
)
def test_garbage_is_no_failure(value: object) -> None:
    """Anybody can write the header."""
    assert load_failures(value) == ()
