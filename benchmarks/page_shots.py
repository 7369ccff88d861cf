"""Take the pictures of the page: `python benchmarks/page_shots.py`.

Runs `stpl-deploy serve` on the tests' bundle and a folder into which moving digits are written, one
a second, with two missing; or on what is given:

    python benchmarks/page_shots.py --name page-radar --bundle radar.bundle \
        --source replay:ARCHIVE --source-option speed=100 --point 80,110

`--point` is a pixel whose next hour is shown. Options that it does not know are passed on to
`serve`.

Writes docs/pictures/NAME-WIDTH-SCHEME.png. Needs the training side, playwright and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from stpl_core.files import atomic_file
from stpl_train.data import unseen_sequence
from stpl_train.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PICTURES, DATA = ROOT / "docs" / "pictures", ROOT / "tests" / "data"
WIDTHS = {1280: 900, 400: 860}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
AT_ONCE, MISSING = 45, (38, 41)
"""Digits that are there when it starts, and those of them that never come."""


def feed(folder: Path, stop: threading.Event) -> None:
    """Write a digit a second, named by the time."""
    recipe = load_recipe(str(DATA / "predrnn-digits.toml"))
    frames = unseen_sequence(recipe.data, 400)  # (T, C, H, W)
    start = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(seconds=AT_ONCE)
    for n, frame in enumerate(frames):
        due = start + timedelta(seconds=n)
        if stop.wait(max(0.0, (due - datetime.now(timezone.utc)).total_seconds())):
            return
        if n in MISSING:
            continue
        with atomic_file(folder / due.strftime("%Y%m%d%H%M%S.png")) as file:
            Image.fromarray(np.round(frame[0] * 255).astype(np.uint8)).save(file, format="PNG")


@contextmanager
def served(words: list[str], here: Path) -> Iterator[str]:
    """Run `stpl-deploy serve` in a directory -> the page's address."""
    command = [sys.executable, "-m", "stpl_deploy", "serve", *words, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=here) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            while line and not line.startswith("page: "):  # what is said of the engine
                line = process.stderr.readline()
            assert line, "serve ended before its page was up"
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield line.removeprefix("page: ").strip()
        finally:
            process.terminate()


def wait_for(url: str, compared: int) -> None:
    """Until so many forecasts were compared with what came."""
    name = "stpl_skill_scored_total{"
    while True:
        with urllib.request.urlopen(f"{url}metrics") as answer:
            lines = answer.read().decode().splitlines()
        if sum(float(line.split()[-1]) for line in lines if line.startswith(name)) >= compared:
            return
        time.sleep(0.5)


def shoot(page: Page, url: str, lead: int, point: str | None, path: Path) -> None:
    """One picture, with the slider on a lead time, and a point's next hour where one is given."""
    page.goto(f"{url}#point={point}" if point else url)
    expect(page.locator("#trio")).to_be_visible(timeout=60_000)
    if point:
        expect(page.locator("#point-table")).to_be_visible(timeout=60_000)
    page.focus("#play")
    page.keyboard.press("n")
    for _ in range(lead):
        page.keyboard.press("ArrowRight")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(1200)  # a whole pulse
    page.screenshot(path=path, full_page=True)
    Image.open(path).convert("RGB").save(path, optimize=True)


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="page")
    parser.add_argument("--bundle", default=str(DATA / "predrnn-digits.bundle"))
    parser.add_argument("--source")
    parser.add_argument("--lead", type=int, default=4)
    parser.add_argument("--point", help="X,Y: column and row")
    parser.add_argument("--compared", type=int, default=150)
    given, others = parser.parse_known_args()
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary) / "camera"
        folder.mkdir()
        bundle = str(Path(given.bundle).resolve())
        words = [bundle, given.source or folder.name, "--policy", "queue", *others]
        if given.source is None:
            words += ["--cadence", "1", "--on-gap", "bridge"]
            threading.Thread(target=feed, args=(folder, stop), daemon=True).start()
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        with served(words, folder.parent) as url:
            wait_for(url, given.compared)
            for width, height in WIDTHS.items():
                for scheme in SCHEMES:
                    size = ViewportSize(width=width, height=height)
                    tab = chromium.new_context(viewport=size, color_scheme=scheme).new_page()
                    path = PICTURES / f"{given.name}-{width}-{scheme}.png"
                    shoot(tab, url, given.lead, given.point, path)
                    tab.context.close()
        stop.set()
        chromium.close()


if __name__ == "__main__":
    main()
