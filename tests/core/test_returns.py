"""Which returns may have been crashes: those that this process did not live through."""

from worker.core.returns import Survived


def test_what_came_back_before_is_unexplained() -> None:
    """Another process had it, and nobody knows how that ended."""
    assert Survived(10).unexplained("m", b"body", 7) == 7


def test_what_came_back_since_then_is_survived() -> None:
    """A hundred releases of an outage do not make a message suspect."""
    survived = Survived(10)
    counts = [survived.unexplained("m", b"body", returns) for returns in (2, 3, 50, 100)]

    assert counts == [2, 2, 2, 2]


def test_a_copy_that_begins_anew_is_not_held_against_its_past() -> None:
    """The broker counts a copy from 0."""
    survived = Survived(10)
    survived.unexplained("m", b"body", 40)

    assert survived.unexplained("m", b"body", 0) == 0
    assert survived.unexplained("m", b"body", 1) == 1


def test_messages_without_an_id_are_told_apart_by_their_body() -> None:
    """Producers need not give one."""
    survived = Survived(10)
    survived.unexplained(None, b"a", 1)

    assert survived.unexplained(None, b"b", 9) == 9


def test_memory_is_bounded_and_what_is_forgotten_counts_in_full() -> None:
    """Suspicion is the safe side: a suspect is handled alone, not dropped."""
    survived = Survived(2)
    for name in ("a", "b", "c"):
        survived.unexplained(name, b"", 1)

    assert survived.unexplained("a", b"", 9) == 9
    assert survived.unexplained("c", b"", 9) == 1
