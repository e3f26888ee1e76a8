"""How many calls the platform allows us, and what follows from that.

A budget is spent evenly: a tenth of an hour's calls is not gone after the first minutes, and no message waits for an
hour. Its shortest turn is ten minutes, so the least that can be kept is one call in ten minutes.
"""

TURN_S = 600
"""No delivery waits longer for a call; it stays below MAX_UNSETTLED_S."""
HOUR_S = 3600
DAY_S = 86_400
LEAST_PER_HOUR = HOUR_S // TURN_S
LEAST_PER_DAY = DAY_S // TURN_S


def calls_per_hour(per_hour: int | None, per_day: int | None) -> int | None:
    """The tighter one of both budgets, as calls per hour; None without a limit. It keeps the daily one as well."""
    spread = None if per_day is None else per_day * HOUR_S // DAY_S
    return min((limit for limit in (per_hour, spread) if limit is not None), default=None)


def calls_per_turn(per_hour: int) -> int:
    """How many calls may be made in ten minutes."""
    return max(1, per_hour * TURN_S // HOUR_S)


def prefetch_in_use(prefetch: int, *, max_batch: int, per_hour: int | None) -> int:
    """No more messages than the calls of ten minutes can carry: the rest is better off at the broker."""
    return prefetch if per_hour is None else min(prefetch, max_batch * calls_per_turn(per_hour))
