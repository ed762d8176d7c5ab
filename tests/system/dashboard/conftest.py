"""One miner and one browser for all tests, each of which leaves the miner idle and at work; a page for each test."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.dashboard_testbed import DashboardTestbed

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")  # not longer: it polls all the time
def testbed(tmp_path_factory):
    with DashboardTestbed(tmp_path_factory.mktemp("testbed")) as testbed:
        yield testbed


@pytest.fixture(scope="module")  # playwright keeps an event loop running in this thread, which others cannot have
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `test` brings playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens pages; at the end of the test none of them has complained, or asked another machine for anything."""
    contexts, faults = [], []

    def watched(page, but):
        def note(message):
            if message.type in ("error", "warning") and not (but and but in message.text):
                faults.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: is_elsewhere(request.url) and faults.append(request.url))
        page.set_default_timeout(20_000)
        return page

    def open_page(url, *, but="", **options):
        contexts.append(browser.new_context(**options))
        page = watched(contexts[-1].new_page(), but)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults


def is_elsewhere(url):
    return urlsplit(url).scheme not in ("data", "about") and urlsplit(url).hostname != "127.0.0.1"
