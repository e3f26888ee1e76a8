"""Which returns may have been crashes: those that this process did not live through."""

from tests.builders import make_delivery
from worker.core.identity import identity
from worker.core.returns import Survived

MESSAGE = ("m", b"digest")


def test_what_came_back_before_is_unexplained() -> None:
    """Another process had it, and nobody knows how that ended."""
    assert Survived(10).unexplained(MESSAGE, 7) == 7


def test_what_came_back_since_then_is_survived() -> None:
    """A hundred releases of an outage do not make a message suspect."""
    survived = Survived(10)
    counts = [survived.unexplained(MESSAGE, returns) for returns in (2, 3, 50, 100)]

    assert counts == [2, 0, 0, 0]


def test_memory_is_bounded_and_what_is_forgotten_counts_in_full() -> None:
    """Suspicion is the safe side: a suspect is handled alone, not dropped."""
    survived = Survived(2)
    for name in ("a", "b", "c"):
        survived.unexplained((name, b""), 1)

    assert survived.unexplained(("a", b""), 9) == 9
    assert survived.unexplained(("c", b""), 9) == 0


def test_messages_without_an_id_are_told_apart_by_their_body() -> None:
    """Producers need not give one, and may give the same one twice."""
    names = {identity(make_delivery(body, message_id=name)) for body in (b"a", b"b") for name in (None, "m")}

    assert len(names) == 4
