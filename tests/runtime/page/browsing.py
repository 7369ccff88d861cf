"""A tab of Chromium, as the tests of the page look at it."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.runtime.page.required import REQUIRED

if not REQUIRED:
    pytest.importorskip("playwright.sync_api")

from playwright import sync_api

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

K = 3
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not REQUIRED, reason="no Chromium: apt-get install chromium"
)

PIXELS = """id => {
  const {width, height} = document.getElementById(id);
  const copy = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
  copy.drawImage(document.getElementById(id), 0, 0);
  return [width, height, ...copy.getImageData(0, 0, width, height).data];
}"""


class Watched:
    """A tab, and everything that it said and asked for."""

    def __init__(self, context: BrowserContext, port: int) -> None:
        self.tab: Page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(f"http://127.0.0.1:{port}/")

    def ready(self) -> Watched:
        """Wait until it shows a nowcast."""
        sync_api.expect(self.tab.locator("#strip-ahead li")).to_have_count(K, timeout=20_000)
        return self

    def text(self, selector: str) -> str:
        return self.tab.locator(selector).inner_text()

    def says(self, selector: str, text: str) -> None:
        """Wait until an element says this."""
        sync_api.expect(self.tab.locator(selector)).to_contain_text(text, timeout=20_000)

    def until(self, expression: str) -> None:
        """Wait until JavaScript holds; Playwright's own way to is against the page's policy."""
        deadline = time.monotonic() + 20
        while not self.tab.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.tab.wait_for_timeout(20)

    def canvas(self, name: str = "picture") -> np.ndarray:
        """What is drawn, `(H, W, 3)`."""
        width, height, *values = self.tab.evaluate(PIXELS, name)
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]
