"""The pictures of every page in docs/pictures: `python -m tests.system.dashboard.pictures [MINUTES]`.

Of a real miner, with the demo's photos as tasks, wrong ones among them, and a stand-in for NVML in place of a GPU. It
takes MINUTES (16), so that the charts are full.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.support.dashboard_testbed import DashboardTestbed
from tests.support.paths import ROOT
from tests.support.testbed import until
from tests.system.dashboard.conftest import CHROMIUM, SWITCHES
from tests.system.dashboard.test_page import PAGES

PICTURES = ROOT / "docs" / "pictures"
SAMPLES = sorted((ROOT / "miner" / "samples").glob("*.[jpw]*[gp]"))
LONGEST = 4.5  # times its width; what is below is cut off
SIZES = {"desktop": {"width": 1200, "height": 800}, "phone": {"width": 390, "height": 844}}
ENABLED = {"4": ["upscaler-lanczos"], "slow": ["slow"], "3": ["plain-picture"], "1": ["wan22-5b"], "2": ["mochi-fp8"]}


def main(minutes: float) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = folder / "libnvidia-ml.so.1"
        source = ROOT / "tests" / "support" / "nvml.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        with (
            DashboardTestbed(folder, environ={"LD_LIBRARY_PATH": name}, workflows=ENABLED) as testbed,
            sync_playwright() as started,
        ):
            browser = started.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
            take(browser, testbed, "sign-in")
            take(browser, testbed, "now", "empty")
            fill(testbed)
            threading.Event().wait(60 * minutes)
            running = testbed.slow(60.0)
            waiting = testbed.create(parameters={"image": photo(testbed, SAMPLES[0])})
            until(lambda: "step" in testbed.now()["says"], why="the steps")
            threading.Event().wait(20.0)
            for page in PAGES:
                take(browser, testbed, page)
            browser.close()
            testbed.ended(running, waiting)
            testbed.worker.kill()


def fill(testbed: DashboardTestbed) -> None:
    """A few tasks of each outcome."""
    testbed.ended(testbed.slow(30.0))
    wrong = [
        testbed.create(parameters={"image": "http://169.254.169.254/latest/meta-data"}),
        testbed.create(task_type="txt2img", workflow_id="3", parameters={"prompt": "a lighthouse", "width": 10**9}),
    ]
    lost = testbed.slow(600.0)
    until(lambda: "step" in testbed.now()["says"], why="the steps")
    testbed.cancel(lost)
    done = [testbed.create(parameters={"image": photo(testbed, path)}) for path in SAMPLES]
    testbed.ended(*wrong, *done)
    plain = {"prompt": "a lighthouse", "width": 680, "height": 1024, "seed": 4_620_980}
    testbed.ended(testbed.create(task_type="txt2img", workflow_id="3", parameters=plain))
    testbed.ended(*[testbed.create(parameters={"image": photo(testbed, path)}) for path in SAMPLES])


def photo(testbed: DashboardTestbed, path: Path) -> str:
    """Put it into devnet's store; returns its URL."""
    reply = testbed.session.put(f"{testbed.devnet.url}/inputs/{path.name}", data=path.read_bytes(), timeout=30)
    return reply.json()["url"]


def take(browser: Browser, testbed: DashboardTestbed, page: str, suffix: str = "") -> None:
    """Pictures of one page in every size and scheme."""
    for size, viewport in SIZES.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport=viewport, color_scheme=scheme, device_scale_factor=1.5 if size == "phone" else 1
            )
            shown = context.new_page()
            if page == "sign-in":
                shown.goto(f"{testbed.url}/sign-in")
            else:
                shown.goto(f"{testbed.url}/#{page}")
                shown.locator(f"#page-{page} :is(li, dl, article)").first.wait_for()
            shown.wait_for_timeout(700)  # for the pictures on the page
            picture = Image.open(io.BytesIO(shown.screenshot(full_page=True))).convert("RGB")
            picture = picture.crop((0, 0, picture.width, min(picture.height, round(LONGEST * picture.width))))
            name = "-".join(part for part in (page, suffix, size, scheme) if part)
            picture.save(PICTURES / f"{name}.webp", quality=72, method=6)
            context.close()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 16.0)
