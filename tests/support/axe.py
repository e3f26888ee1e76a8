"""axe-core in a page: what keeps people from using it, by the rules of WCAG 2, levels A and AA, and good practice."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

from tests.support.npmpackages import laid_out

SERIOUS: Final = ("serious", "critical")
_RUN: Final = """async (only) => {
  const rules = only.length ? {runOnly: {type: "rule", values: only}} : {};
  const found = await axe.run(document, {resultTypes: ["violations"], preload: false, iframes: false, ...rules});
  return found.violations.map(({id, impact, help, nodes}) => [impact, `${id}: ${help}`, nodes.map(
    ({html, failureSummary}) => `${html}\\n${failureSummary}`)]);
}"""


@cache
def _source() -> str:
    folder = laid_out(Path(__file__).with_suffix(""))
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


async def findings(page: Page, *, only: Sequence[str] = ()) -> list[str]:
    """What it calls serious or critical, a text each, with the elements. ``only`` these rules; none: all."""
    # Past the page's policy, as the browser's own tools: pages allow no script but their own.
    if not await page.evaluate("() => 'axe' in window"):
        await page.evaluate(_source())
    found: list[tuple[str, str, list[Any]]] = await page.evaluate(_RUN, list(only))
    return [f"{rule}\n" + "\n".join(map(str, nodes)) for impact, rule, nodes in found if impact in SERIOUS]
