"""Everything can be reached without a mouse, and read without our script."""

from playwright.async_api import Browser, expect

from tests.console.browser.person import Person, person_at
from tests.console.guarded import Guarded

MOST_STEPS = 150
PAGES = ("/now", "/dead", "/dead/letters", "/replays/new", "/dead/letter?copy=copy-2-0")
REACHABLE = "a[href], button:enabled, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
COUNT = """(selector) => [...document.querySelectorAll(selector)].filter((part) => part.checkVisibility()).length"""
FOCUSED = """() => {
  const part = document.activeElement;
  if (part === document.body) return null;
  const {outlineStyle, outlineWidth} = getComputedStyle(part);
  const {left, bottom} = part.getBoundingClientRect();
  const shown = outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && left >= 0 && bottom > 0;
  const number = [...document.querySelectorAll("*")].indexOf(part);
  return [number, shown ? "" : part.outerHTML];
}"""
"""The part that has the focus: its place in the page, and itself where nobody would see that it has it."""


async def walked(person: Person) -> tuple[set[int], list[str]]:
    """All parts that the tab key leads to, until it leaves the page or begins again, and those without a sign of it."""
    seen: set[int] = set()
    hidden: list[str] = []
    for _ in range(MOST_STEPS):
        await person.page.keyboard.press("Tab")
        found = await person.page.evaluate(FOCUSED)
        if found is None or found[0] in seen:
            return seen, hidden
        seen.add(found[0])
        hidden += [found[1]] if found[1] else []
    raise AssertionError("the tab key never comes to an end")


async def test_the_keyboard_leads_everywhere_and_shows_where_it_is(chrome: Browser, guarded: Guarded) -> None:
    """Each link, button and field of a page once, with a frame around it."""
    async with person_at(chrome, guarded.stage.base) as person:
        await person.log_in(guarded.tokens["kim"])
        for path in PAGES:
            assert await person.open(path) == 200, path
            seen, hidden = await walked(person)
            assert hidden == [], path
            assert len(seen) == await person.page.evaluate(COUNT, REACHABLE), path


async def test_from_the_first_page_to_a_plan_by_keys_alone(chrome: Browser, guarded: Guarded) -> None:
    """Past the head of the page, to the letters, and to the button; and a stroke leads to the search."""
    async with person_at(chrome, guarded.stage.base) as person:
        keyboard = person.page.keyboard
        await person.log_in(guarded.tokens["kim"])
        await person.open("/dead/letters")
        await keyboard.press("Tab")
        await expect(person.place(".skip")).to_be_in_viewport()
        await keyboard.press("Enter")
        while await person.page.evaluate("document.activeElement.id") != "plan":
            await keyboard.press("Tab")
        await keyboard.press("Enter")
        await person.until_at("/replays/new")
        await person.place("#make-plan").focus()
        await keyboard.press("Enter")
        await person.until("would apply")
        await keyboard.press("/")
        await keyboard.type("2")
        await keyboard.press("Enter")
        await person.until("Order 2")


async def test_without_our_script_pages_are_read_and_forms_work(chrome: Browser, guarded: Guarded) -> None:
    """A reload shows what the script would have shown."""
    async with person_at(chrome, guarded.stage.base, scripts=False) as person:
        await person.log_in(guarded.tokens["kim"])
        await person.follow("Dead letters")
        assert len(await person.words("#groups")) > 0
        await person.follow("rejected")
        await person.follow("Plan a replay")
        await person.press("Plan 3 letters")
        await person.until("What would come of it")
        await person.follow("Now")
        await person.type("Why (for those who find it paused)", "tea")
        await person.press("Pause all workers")
        await person.until("Paused: tea")
        await person.press("Log out")
        await person.until_at("/login")
