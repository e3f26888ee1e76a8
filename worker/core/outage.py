"""An outage: not a message is the reason why nothing moves, but the platform, or a person who has to look."""

from dataclasses import dataclass
from enum import StrEnum

from worker.core.verdict import Call, Judgement


class OutageKind(StrEnum):
    """Why no further call may start for now."""

    UNAVAILABLE = "unavailable"
    THROTTLED = "throttled"
    AUTH = "auth"
    CONFIGURATION = "configuration"
    STORM = "storm"
    MANUAL = "manual"
    COPIES = "copies"


BY_HAND = frozenset({OutageKind.STORM, OutageKind.MANUAL})
"""Only a person ends these: no answer of the platform could."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Outage:
    """What is known of it. ``needs_entry``: an accepted control call would prove nothing, only an applied order
    does."""

    kind: OutageKind
    detail: str
    retry_after: str | None = None
    needs_entry: bool = False


_KINDS = {
    Call.UNAVAILABLE: OutageKind.UNAVAILABLE,
    Call.UNKNOWN: OutageKind.UNAVAILABLE,
    Call.THROTTLED: OutageKind.THROTTLED,
    Call.AUTH: OutageKind.AUTH,
    Call.CONFIGURATION: OutageKind.CONFIGURATION,
}


def outage_of(judgement: Judgement) -> Outage:
    """The outage that a call verdict speaks of. Not for answered and refused calls, which speak of none."""
    return Outage(kind=_KINDS[judgement.call], detail=judgement.detail, retry_after=judgement.retry_after)
