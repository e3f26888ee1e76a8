"""Forgetting the oldest of what is remembered in a dict, where the first in it is the oldest."""

from itertools import islice
from typing import Any


def drop_first(remembered: dict[Any, Any], number: int) -> None:
    """Take out so many from the front, none where ``number`` is below 1.

    All of them with one look at the front: each look passes over whatever was taken out there since the dict grew last,
    so one after the other they cost the more the larger the dict is.
    """
    for key in list(islice(remembered, max(0, number))):
        del remembered[key]
