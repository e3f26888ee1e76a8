"""What all pages work with: the settings, the journal, the works under way, and the audit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog
from aiohttp import web

from worker.config import Settings
from worker.console.access import VISITOR, Access
from worker.console.pages import Pages
from worker.console.people import Person
from worker.console.sessions import Throttle
from worker.console.words import on_one_line
from worker.console.works import Work, Works
from worker.core.audit import Action, Deed, Outcome
from worker.core.errors import JournalOutdated, JournalUnavailable, UsageError
from worker.core.excerpt import excerpt
from worker.core.masking import mask_text
from worker.core.settings import Payloads
from worker.ports import wall_us
from worker.replay.books import Books

log = structlog.get_logger(__name__)

WAIT_S: Final = 5.0
"""How long a person waits for a broker that is away."""
LONGEST_TARGET: Final = 1000
"""Characters of what a deed was done to: a dozen message ids."""
MOST_REFUSALS: Final = 60
"""Refusals of nobody in particular that are noted in a minute: whoever knocks must not fill the journal."""


class Shelved(Protocol):
    """Where the journal is."""

    async def books(self) -> Books:
        """Raises JournalUnavailable and JournalOutdated."""
        ...


class Auditing:
    """Notes deeds in the journal; where that is away, the log has them."""

    def __init__(self, shelf: Shelved) -> None:
        self._shelf = shelf
        self._knocks = Throttle(most=MOST_REFUSALS)

    async def note(
        self, by: str, action: Action, outcome: Outcome, target: str = "", detail: str = "", count: int | None = None
    ) -> None:
        """Put it down; never raises because of the journal."""
        if action in (Action.ACCESS, Action.LOG_IN) and outcome is Outcome.REFUSED:
            log.warning("console.refused", who=by, target=target, detail=detail)
            if self._knocks.wait_s("") > 0:
                return
            self._knocks.failed("")
        else:
            log.info("console.deed", who=by, deed=action.value, outcome=outcome.value, target=target, count=count)
        deed = Deed(
            at_us=wall_us(),
            by=by,
            action=action,
            outcome=outcome,
            target=excerpt(target) if outcome is Outcome.REFUSED else named(target),
            detail=excerpt(detail),
            count=count,
        )
        try:
            await (await self._shelf.books()).note(deed)
        except (JournalUnavailable, JournalOutdated) as error:
            log.warning("console.deed_not_kept", detail=str(error))

    async def ended(self, work: Work) -> None:
        """A work is over."""
        outcome = Outcome.FAILED if work.failed else Outcome.STOPPED if work.stopped else Outcome.DONE
        await self.note(work.by, work.action, outcome, work.target, work.told, work.count)


def named(target: str) -> str:
    """What a deed was done to, as the audit keeps it: ids stay readable, which as foreign words would be masked."""
    line = on_one_line(mask_text(target))
    return line if len(line) <= LONGEST_TARGET else line[: LONGEST_TARGET - 1] + "…"


@dataclass(slots=True, frozen=True, kw_only=True)
class Desk:
    """Everything a page may need."""

    settings: Settings
    shelf: Shelved
    access: Access
    pages: Pages
    works: Works
    auditing: Auditing

    @property
    def queue(self) -> str:
        """The dead-letter queue that the console is about."""
        return self.settings.dead_letter_queue

    async def books(self) -> Books:
        """The journal. Raises JournalUnavailable and JournalOutdated."""
        return await self.shelf.books()

    def folder(self) -> Path:
        """Where files go; made here, for its owner's eyes only. Raises UsageError."""
        folder = Path(self.settings.console_files).absolute()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"ORDER_WORKER_CONSOLE_FILES: {folder}: {error.strerror}") from None
        return folder

    def shows_payloads(self, person: Person) -> bool:
        """Whether this person sees bodies and headers (``PAYLOADS``)."""
        match self.settings.payloads:
            case Payloads.NOBODY:
                return False
            case Payloads.OPERATOR:
                return person.operates
            case Payloads.EVERYBODY:
                return True


def who(request: web.Request) -> Person:
    """Who is asking; pages are only made for somebody."""
    return request[VISITOR].person


def holder(person: Person) -> str:
    """Who takes dead letters, for whoever finds them taken."""
    return f"{person.name}, order-worker console"
