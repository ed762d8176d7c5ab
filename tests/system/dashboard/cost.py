"""What the dashboard costs the worker: `python -m tests.system.dashboard.cost`.

CPU of the worker's process while ComfyUI sends ten previews a second, without anybody looking and with the page open in
three browsers; its resident memory; and how much of that is the server's. Not a test: it depends on the machine.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from tests.support import proc
from tests.support.dashboard_testbed import DashboardTestbed
from tests.support.testbed import until
from tests.system.dashboard.conftest import CHROMIUM, SWITCHES

SECONDS = 20.0
BROWSERS = 3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, DashboardTestbed(Path(folder), log__level="INFO") as testbed:
        idle = proc.rss(testbed.worker.popen.pid)
        testbed.slow(10 * SECONDS)
        until(lambda: "step" in testbed.now()["says"], why="the steps")
        alone = cpu(testbed)
        with sync_playwright() as playwright:
            launch = playwright.chromium.launch
            browsers = [launch(executable_path=CHROMIUM, args=SWITCHES) for _ in range(BROWSERS)]
            for browser in browsers:
                page = browser.new_page()
                page.goto(testbed.url)
                page.locator("img.preview[src^=data]").wait_for()
            watched = cpu(testbed)
            for browser in browsers:
                browser.close()
        table = Table("what", "measured", "at most", box=None)
        table.add_row("CPU, nobody looks", f"{alone:.2f} % of a core", "")
        table.add_row(f"CPU, {BROWSERS} browsers look", f"{watched:.2f} % of a core", "")
        table.add_row("… and how much more that is", f"{watched - alone:.2f} % of a core", "5 %")
        table.add_row("the worker's RSS, idle, with the server on", f"{idle:.1f} MB", "90 MB")
        table.add_row("… after all this", f"{proc.rss(testbed.worker.popen.pid):.1f} MB", "90 MB")
        Console().print(table)
        testbed.worker.kill()


def cpu(testbed: DashboardTestbed) -> float:
    """Percent of a core that the worker uses."""
    pid = testbed.worker.popen.pid
    before = proc.cpu_seconds(pid)
    threading.Event().wait(SECONDS)
    return 100 * (proc.cpu_seconds(pid) - before) / SECONDS


if __name__ == "__main__":
    main()
