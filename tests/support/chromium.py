"""Debian's Chromium without a screen, driven by Playwright; the package is installed where it is missing.

Playwright brings its driver and no browser: nothing is downloaded from anywhere but the distribution.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from playwright.async_api import Browser, async_playwright

from worker.adapters.aptpackage import install

PROGRAM: Final = "chromium"
ELSEWHERE: Final = "elsewhere.example"
"""A name that this browser, and nobody else, finds at this machine."""
_OPTIONS: Final = (f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1", "--disable-dev-shm-usage", "--disable-gpu")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser of one's own, with a profile that goes with it."""
    program = shutil.which(PROGRAM)
    if program is None:
        await asyncio.to_thread(install, PROGRAM, otherwise="install Debian's package chromium")
        program = shutil.which(PROGRAM)
    # Its sandbox refuses to work for root; it sees nothing here but pages of ours.
    options = [*_OPTIONS, "--no-sandbox"] if os.geteuid() == 0 else list(_OPTIONS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            await browser.close()
