"""axe-core in a page: what keeps people from using it, by the rules of WCAG 2, levels A and AA, and good practice."""

from functools import cache
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

from tests.support.npmpackages import laid_out

SERIOUS: Final = ("serious", "critical")
_RUN: Final = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return found.violations.map(({id, impact, help, nodes}) => [impact, `${id}: ${help}`, nodes.map(
    ({html, failureSummary}) => `${html}\\n${failureSummary}`)]);
}"""


@cache
def _source() -> str:
    folder = laid_out(Path(__file__).with_suffix(""))
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


async def findings(page: Page) -> list[str]:
    """What it calls serious or critical, a text each, with the elements."""
    # Past the page's policy, as the browser's own tools: pages allow no script but their own.
    await page.evaluate(_source())
    found: list[tuple[str, str, list[Any]]] = await page.evaluate(_RUN)
    return [f"{rule}\n" + "\n".join(map(str, nodes)) for impact, rule, nodes in found if impact in SERIOUS]
