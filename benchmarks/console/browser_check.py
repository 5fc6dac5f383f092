"""Looks at the console in a headless Chromium: accessibility, keyboard, width, live parts."""

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.console.shown_pages import Shown

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

_PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WIDE: Final = {"width": 1200, "height": 900}
_NARROW: Final = {"width": 400, "height": 860}
_TAGS: Final = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]
_RULES: Final = {"runOnly": {"type": "tag", "values": _TAGS}}
MAIN: Final = frozenset(
    {
        *("overview", "events", "event behind others", "entity", "dead letters", "failures"),
        *("a role without rights", "healthy"),
    }
)
"""The pages that a brief look sees."""
PICTURED: Final = frozenset(
    {("healthy", "light"), ("event behind others", "dark"), ("dead letters", "light")}
)
"""The looks of pages that README.md and docs/console.md show."""

_OPTIONS: Final = ("--no-sandbox", "--disable-background-networking", "--disable-gpu")


_CUT: Final = """[...document.querySelectorAll(".wide")]
  .filter((each) => each.scrollWidth > each.clientWidth)
  .map((each) => each.innerText.slice(0, 60))"""


class Consoles(NamedTuple):
    """The URLs of the consoles: on many rows, of a role without rights, on a healthy outbox."""

    full: str
    bare: str
    healthy: str


class NoBrowser(Exception):
    """There is no browser, or nothing that drives it, and how to get it."""


@asynccontextmanager
async def browsers() -> AsyncGenerator["Browser"]:
    """A headless Chromium. Raises `NoBrowser`."""
    try:
        from playwright.async_api import async_playwright  # noqa: PLC0415 - may be missing
    except ModuleNotFoundError as error:
        raise NoBrowser("install the dependency group `browser`, as make console-check") from error
    program = next((found for name in _PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        raise NoBrowser("install Chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=[*_OPTIONS])
        try:
            yield browser
        finally:
            await browser.close()


class Looking:
    """Opens pages and collects their faults."""

    def __init__(self, browser: "Browser", pictures: Path | None) -> None:
        self._browser = browser
        self._pictures = pictures
        self.faults: list[str] = []

    @asynccontextmanager
    async def page(
        self, url: str, size: Any = _WIDE, scheme: Any = "light"
    ) -> AsyncGenerator["Page"]:
        """A page in its own browser; an error in its console is a fault."""
        context = await self._browser.new_context(viewport=size, color_scheme=scheme)
        context.set_default_timeout(20_000)
        page = await context.new_page()
        page.on("console", lambda said: self._hear(url, said))
        page.on("pageerror", lambda error: self.faults.append(f"{url}: {error}"))
        await page.goto(url, wait_until="load")
        try:
            yield page
        finally:
            await context.close()

    def _hear(self, url: str, said: Any) -> None:
        # A page that refuses answers 403, as it should.
        if said.type == "error" and "status of 403" not in said.text:
            self.faults.append(f"{url}: {said.text}")

    async def picture(self, page: "Page", name: str, kind: str) -> None:
        """Save a screenshot, if that is asked for."""
        if self._pictures is not None and (name, kind) in PICTURED:
            self._pictures.mkdir(parents=True, exist_ok=True)
            file = f"console-{name.replace(' ', '-')}-{kind}.png"
            await page.screenshot(path=self._pictures / file)

    async def accessible(self, page: "Page", name: str) -> None:
        """Check a page by the rules of axe-core."""
        from axe_playwright_python.async_playwright import Axe  # noqa: PLC0415 - may be missing

        found = await Axe().run(page, options=_RULES)
        for each in found.response["violations"]:
            where = "; ".join(" ".join(node["target"]) for node in each["nodes"][:3])
            self.faults.append(f"{name}: {each['id']}: {each['help']} ({where})")

    async def fits(self, page: "Page", name: str) -> None:
        """Check that a page is not wider than its window, and no table wider than its frame."""
        width = await page.evaluate("innerWidth")
        wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
        if wide:
            self.faults.append(f"{name}: wider than {width} pixels")
        for title in await page.evaluate(_CUT):
            self.faults.append(f"{name}: a table is cut at {width} pixels: {title}")


async def look(
    consoles: Consoles, shown: Shown, pictures: Path | None, *, brief: bool
) -> list[str]:
    """Look at every page, or at the main ones only, and return the faults."""
    async with browsers() as browser:
        looking = Looking(browser, pictures)
        pages = [(name, consoles.full + path.removeprefix("/")) for name, path in shown.pages()]
        pages.append(("a role without rights", consoles.bare))
        pages.append(("healthy", consoles.healthy))
        pages = [each for each in pages if each[0] in MAIN or not brief]
        for name, address in pages:
            await _look_at(looking, name, address)
        await _live(looking, consoles.full)
        await _keyboard(looking, consoles.full)
        said = f"{len(pages)} pages, each light, dark and at 400 pixels"
        print(f"\nseen in Chromium {browser.version}: {said}")
        return looking.faults


async def _look_at(looking: Looking, name: str, address: str) -> None:
    for scheme in ("light", "dark"):
        async with looking.page(address, scheme=scheme) as page:
            await looking.accessible(page, f"{name}, {scheme}")
            await looking.fits(page, name)
            await looking.picture(page, name, scheme)
    async with looking.page(address, size=_NARROW) as page:
        await looking.fits(page, name)
        await looking.picture(page, name, "narrow")


async def _live(looking: Looking, url: str) -> None:
    """The time of the read changes without a reload, until it is paused."""
    from playwright.async_api import expect  # noqa: PLC0415 - may be missing

    async with looking.page(url) as page:
        before = await page.inner_text("#reading")
        await expect(page.locator("#reading")).not_to_have_text(before)
        await page.click("[data-pause]")
        if await page.inner_text("[data-pause]") != "Continue":
            looking.faults.append("overview: the live view cannot be paused")
        await page.route("**/live", lambda route: route.fulfill(status=204))
        await page.click("[data-pause]")
        await expect(page.locator("[data-lost]")).to_contain_text("old", timeout=15_000)


async def _keyboard(looking: Looking, url: str) -> None:
    """The first stop of the keyboard skips to the content; then come the links."""
    async with looking.page(url) as page:
        stops = []
        for _ in range(4):
            await page.keyboard.press("Tab")
            stops.append(await page.evaluate("document.activeElement.innerText"))
        if stops[0] != "Skip to the content" or "Events" not in stops:
            looking.faults.append(f"overview: the keyboard stops at {', '.join(stops)}")
