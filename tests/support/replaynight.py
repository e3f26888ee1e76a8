"""The bad night of the replay tests: six dead letters of four kinds, and what has to hold of them in the end."""

from tests.support.replaystage import Stage, dead_letter, invalid_letter
from worker.core.history import ItemState
from worker.core.model import Reason

BAD_NIGHT = (
    dead_letter(1, status=4, at_s=1),
    dead_letter(2, status=4, at_s=1),
    dead_letter(3, status=4, at_s=1),
    invalid_letter(4),
    dead_letter(5, status=4, at_s=1, reason=Reason.TERMINAL_ORDER),
    dead_letter(1, status=5, at_s=2, number=1),
)
"""Two to apply for order 1, one of order 2, one superseded, one that is no event, one whose order is over."""


async def bad_night() -> Stage:
    """The stage after it, with one more letter that came behind the plan."""
    stage = Stage(BAD_NIGHT)
    await stage.apply(3, 9)
    await stage.apply(5, 0, status=64)
    await stage.index()
    return stage


async def whole_story(stage: Stage) -> None:
    """What has to hold after a resume, whatever broke before."""
    assert await stage.state() == "done"
    went = {ItemState.MOVED, ItemState.SUPERSEDED}  # a second copy is not made where the first was applied
    states = list((await stage.states()).values())
    assert states[2:5] == [ItemState.SUPERSEDED, ItemState.LEFT, ItemState.LEFT]
    assert {states[0], states[1], states[5]} <= went
    assert stage.left() == ["copy-4-invalid", "copy-5-0"]
    effects = [(order_id, fields["status"]) for order_id, fields, _ in stage.applied]
    assert sorted(effects) == sorted(set(effects)), "an event had effect twice"
    assert await stage.status(1) == 5
    assert await stage.status(2) == 4
    assert await stage.status(3) == 8
    assert (2, 4) in effects
    assert (1, 5) in effects
