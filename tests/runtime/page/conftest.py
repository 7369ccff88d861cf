"""One Chromium for each module that looks at the page with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.runtime.page.browsing import CHROMIUM, sync_api

    with sync_api.sync_playwright() as playwright:
        # No sandbox: in a container its user namespaces are often missing.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
