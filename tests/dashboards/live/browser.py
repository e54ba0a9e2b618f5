"""Pages looked at in a headless Chromium: what is on them, where it lies, and what went wrong meanwhile.

Chromium comes from the system (apt: chromium-headless-shell or chromium) and is driven by Playwright (pip, `look`).
Pages are opened from files; anything that they ask of the network is refused and remembered.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, _PROGRAMS)), None)
MISSING = "no Chromium here: make dashboards-setup" if PROGRAM is None else ""
if not MISSING and find_spec("playwright") is None:
    MISSING = "no Playwright here: make dashboards-setup"
"""Why no page can be looked at; empty where one can."""

_OUTSIDE = """selector => [...document.querySelectorAll(selector)].flatMap(each => {
  const inner = each.getBoundingClientRect(), outer = each.parentElement.getBoundingClientRect();
  const out = inner.left < outer.left - 0.5 || inner.right > outer.right + 0.5;
  return out ? [each.outerHTML.slice(0, 120)] : [];
})"""


@dataclass
class Look:
    """A page that is open, and what has gone wrong on it so far: messages of its console, requests to the network."""

    page: Page
    wrong: list[str] = field(default_factory=list)

    def outside(self, selector: str) -> list[str]:
        """Elements that reach beyond their parents to the left or right."""
        return self.page.evaluate(_OUTSIDE, selector)

    def overflows(self) -> bool:
        """Whether the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")

    def boxes(self, selector: str) -> list[dict[str, float]]:
        """x, y, width and height of each element, in pixels."""
        return [each.bounding_box() for each in self.page.locator(selector).all()]  # type: ignore[misc]

    def style(self, selector: str, name: str) -> str:
        """A computed property of the first element."""
        return self.page.locator(selector).first.evaluate("(each, name) => getComputedStyle(each)[name]", name)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, ended at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # The sandbox needs rights that root in a container lacks; the pages are our own.
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def looking(browser: Browser, file: Path, *, width: int = 1200, dark: bool = False) -> Iterator[Look]:
    """A file in a window of that width."""
    scheme: Any = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    look = Look(context.new_page())
    look.page.on("console", lambda message: look.wrong.append(f"console: {message.text}"))
    look.page.on("pageerror", lambda error: look.wrong.append(f"script: {error}"))
    look.page.on("request", lambda asked: _note(look, asked.url, file))
    look.page.route("http*://**", lambda route: route.abort())
    try:
        look.page.goto(file.as_uri())
        yield look
    finally:
        context.close()


def _note(look: Look, url: str, file: Path) -> None:
    if url != file.as_uri() and not url.startswith("data:"):
        look.wrong.append(f"asks for {url}")
