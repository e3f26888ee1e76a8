"""A hundred thousand dead letters in a real browser, at a console that is a process of its own."""

import re
from pathlib import Path

from playwright.async_api import Browser

from tests.console.browser.person import Person, person_at
from tests.console.process import at_work
from tests.console.test_large import COUNT, PATHS, QUICK_S, fill
from tests.support.tool import Tool
from worker.adapters.amqp.topology import Topology
from worker.console.shelf import Shelf

MOST_GROWN_MIB = 48.0
"""Far less than the letters take in memory, which is about a kilobyte each."""
TOOK_S = "() => performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd / 1000"
LISTS = [path for path in PATHS if not path.startswith("/dead/letter?")]


def memory_mib(pid: int) -> float:
    """The most that a process ever had in memory."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


async def time_of(person: Person, path: str) -> float:
    """Seconds until the page is there, as the browser counts them."""
    assert await person.open(path) == 200
    took: float = await person.page.evaluate(TOOK_S)
    return took


async def test_the_first_page_is_quick_and_memory_stays_flat(
    chrome: Browser, names: Topology, sqlite_url: str, tmp_path: Path
) -> None:
    """Everything that matches is counted and can be acted on, and fifty rows at a time are ever in hand."""
    async with Shelf(sqlite_url) as shelf:
        await fill(await shelf.books(), names.dead_queue)
    tool = Tool(tmp_path, "amqp://127.0.0.1:9/", names)
    async with at_work(tool, JOURNAL_URL=sqlite_url) as (process, base), person_at(chrome, base) as person:
        await person.open("/audit")  # templates, connections and the browser's own start
        before = memory_mib(process.pid)
        took = {path: await time_of(person, path) for path in LISTS}
        for _ in range(2):  # machines are busy
            took |= {path: await time_of(person, path) for path, s in took.items() if s >= QUICK_S}
        grown = memory_mib(process.pid) - before
        await person.open("/dead/letters")
        assert len(await person.rows("letters")) == 50
        assert (
            f"All {COUNT:,} letters".replace(",", "\N{NARROW NO-BREAK SPACE}")
            in await person.place("strong").first.inner_text()
        )

    assert max(took.values()) < QUICK_S, took
    assert grown < MOST_GROWN_MIB
