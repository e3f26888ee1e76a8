"""The pictures of the console in README.md: ``python -m tests.console.browser.screenshots`` makes them anew.

Not with every run of the tests: times and ids differ each time, and so would the files.
"""

import asyncio
import io
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from PIL import Image

from tests.console.browser.person import Person, person_at
from tests.console.browser.traffic import evening
from tests.console.guarded import people_file
from tests.console.process import at_work
from tests.support.chromium import chromium
from worker.console.people import Role

FOLDER: Final = Path(__file__).with_name("screens")
SIZE: Final = (1160, 760)
COLOURS: Final = 96
"""As many as nobody misses; it makes the files a third of their size."""
HALF_WAY: Final = """() => {
  const {value, max} = document.querySelector("#progress progress");
  return value > max / 2 && document.querySelector("#fates");
}"""
TROUBLE_S: Final = 240.0
"""So that there is something to see in the charts."""


async def picture(person: Person, name: str) -> None:
    """What the person sees now, as a small file."""
    raw = await person.page.screenshot(animations="disabled")
    with Image.open(io.BytesIO(raw)) as image:
        image.convert("RGB").quantize(COLOURS).save(FOLDER / f"{name}.png", optimize=True)


async def pictures(person: Person) -> None:
    """From the first look to the order that is right again."""
    await person.open("/now")
    await person.until("Calls per minute")
    await picture(person, "now")
    await person.follow("Dead letters")
    await picture(person, "dead-letters")
    await person.follow("Replays")
    await person.follow("Plan a replay of everything")
    name = await person.plan(canary=10, rate="8/s")
    await picture(person, "plan")
    await person.press("Carry it out")
    await person.page.wait_for_function(HALF_WAY)
    await picture(person, "replay")
    await person.until_state("done")
    await person.until_settled()
    await person.open(f"/replays/{name}")
    moved = [row for row in await person.rows("messages-table") if row[3] == "ack applied"]
    await person.open(f"/orders/{moved[0][1]}")
    await picture(person, "order")


async def main() -> None:
    """Make all of them; takes five minutes."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file, tokens = people_file(folder, kim=Role.OPERATOR)
        async with evening(folder) as (happening, tool), AsyncExitStack() as stack:
            console = at_work(tool, CONSOLE_TOKENS_FILE=str(file), CONSOLE_WORKERS=happening.worker)
            browser = await stack.enter_async_context(chromium())
            _, base = await stack.enter_async_context(console)
            person = await stack.enter_async_context(person_at(browser, base, size=SIZE))
            await person.log_in(tokens["kim"])
            await asyncio.sleep(TROUBLE_S)
            happening.calm_down()
            await pictures(person)


if __name__ == "__main__":
    asyncio.run(main())
