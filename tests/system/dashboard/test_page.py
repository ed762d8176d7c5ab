"""The page in a real browser, beside a real miner."""

from __future__ import annotations

import pytest

PAGES = ("now", "history", "workflows", "health")
HOSTILE = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>"


def says(page, text):
    page.get_by_role("heading", level=1).filter(has_text=text).wait_for()


def test_a_task_goes_from_lease_to_thumbnail_and_its_progress_moves(testbed, open_page):
    page = open_page(testbed.url)
    task_id = testbed.slow(60.0, gate="page", previews=2.0)
    says(page, f"rendering {task_id[:8]}… step")
    bar = page.get_by_label("Current node")
    first = bar.evaluate("bar => bar.value")
    page.wait_for_function("at => document.querySelector('[aria-label=\"Current node\"]').value > at", arg=first)
    assert page.get_by_role("img", name="Preview of the render").get_attribute("src").startswith("data:image/")
    assert page.locator("[aria-current=step]").text_content() == "render"
    testbed.open("page")
    page.locator(f"#latest img[src*='{task_id}']").wait_for()
    page.get_by_role("link", name="History").click()
    row = page.locator("#past li", has_text=task_id[:8])
    row.get_by_text("Done").wait_for()
    assert "64 × 64" in row.text_content()
    assert all(stage in row.text_content() for stage in ("prepare", "queue", "render", "deliver"))
    picture = row.get_by_role("img")
    page.wait_for_function("img => img.complete && img.naturalWidth > 0", arg=picture.element_handle())


def test_pause_stops_leasing_and_resume_goes_on(testbed, open_page):
    page = open_page(testbed.url)
    page.get_by_role("button", name="Pause").click()
    says(page, "paused: not leasing")
    assert page.locator("#state").text_content() == "Paused"
    task_id = testbed.quick()
    asked = len(testbed.devnet.requests("miner_request"))
    page.reload()
    page.get_by_role("button", name="Resume").wait_for()
    assert testbed.task(task_id)["status"] == "waiting"
    assert len(testbed.devnet.requests("miner_request")) == asked
    page.get_by_role("button", name="Resume").click()
    (task,) = testbed.ended(task_id)
    assert task["status"] == "finished"
    assert page.locator("#state").text_content() == "Working"


def test_what_a_task_says_is_not_shown_and_runs_nowhere(testbed, open_page):
    page = open_page(testbed.url)
    words = HOSTILE + "x" * (10_000 - len(HOSTILE))
    shown = testbed.slow(60.0, words=words, gate="words", previews=2.0)
    says(page, f"rendering {shown[:8]}")
    testbed.open("words")
    refused = testbed.create(task_type=HOSTILE, workflow_id="3", parameters={"prompt": HOSTILE})
    quoting = testbed.create(task_type="txt2img", workflow_id="3", parameters={"prompt": words, "width": HOSTILE})
    testbed.ended(shown, refused, quoting)
    for name in PAGES:
        page.goto(f"{testbed.url}/#{name}")
        page.reload()
        page.locator(f"#page-{name}").wait_for()
    page.goto(f"{testbed.url}/#history")
    for task_id in (shown, refused, quoting):
        page.locator("#past li", has_text=task_id[:8]).wait_for()
    assert not page.locator("#past").get_by_text(HOSTILE, exact=False).count()
    assert page.evaluate("window.pwned") is None
    assert not page.locator("main script, main img[src=x]").count()


def test_history_is_filtered_by_outcome_and_workflow(testbed, open_page):
    done, refused = testbed.quick(), testbed.create(task_type="txt2img", workflow_id="3", parameters={"width": 64})
    testbed.ended(done, refused)
    page = open_page(f"{testbed.url}/#history")
    rows = page.locator("#past li")
    rows.filter(has_text=done[:8]).wait_for()
    page.get_by_role("combobox", name="Outcome").select_option("refused")
    rows.filter(has_text="prompt is missing").first.wait_for()
    rows.filter(has_text="Done").first.wait_for(state="detached")
    page.get_by_role("combobox", name="Workflow").select_option("slow")
    page.get_by_text("No recent task matches these filters.").wait_for()
    page.get_by_role("combobox", name="Outcome").select_option("")
    rows.filter(has_text=done[:8]).wait_for()
    assert not rows.filter(has_text=refused[:8]).count()


def test_workflows_say_why_they_are_not_offered_and_what_helps(testbed, open_page):
    page = open_page(f"{testbed.url}/#workflows")
    offered = page.locator("#workflows > li", has=page.get_by_role("heading", name="slow"))
    offered.get_by_text("Advertised").wait_for()
    other = page.locator("#workflows > li", has=page.get_by_role("heading", name="flux-lora"))
    assert "Not enabled" in other.text_content()
    assert "XALORA_WORKFLOWS" in other.text_content()


def test_everything_is_reached_by_keyboard(testbed, open_page):
    page = open_page(testbed.url)
    page.locator("#state", has_text="Working").wait_for()
    focused = []
    for _ in range(7):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert [text.rstrip("0123456789") for text in focused] == [
        "Skip to content", "Pause", "Drain…", "Now", "History", "Workflows", "Health",
    ]  # fmt: skip
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Health").wait_for()
    assert page.evaluate("document.activeElement.id") == "title-health"
    page.get_by_role("button", name="Drain…").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Keep running"
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").count()
    assert testbed.now()["state"] == "working"


def test_axe_finds_nothing_on_a_phone_in_light_and_dark(testbed, open_page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra `test` brings it").Axe()
    testbed.ended(testbed.quick(), testbed.create(task_type="txt2img", workflow_id="3", parameters={"width": 64}))
    running = testbed.slow(600.0)
    page = open_page(testbed.url, viewport={"width": 390, "height": 844})
    says(page, f"rendering {running[:8]}… step")
    for name in PAGES:
        page.goto(f"{testbed.url}/#{name}")
        page.locator(f"#page-{name} :is(li, dl)").first.wait_for()
        for scheme, options in (("light", None), ("dark", {"runOnly": ["color-contrast"]})):
            page.emulate_media(color_scheme=scheme)
            found = axe.run(page, options=options)
            assert not found.response["violations"], found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than a phone"
    testbed.cancel(running)


def test_the_miner_dies_and_comes_back_and_so_does_the_page(testbed, open_page):
    testbed.ended(testbed.quick())
    page = open_page(testbed.url, but="net::ERR_")  # the browser itself says that nobody answers
    says(page, "waiting for a task")
    testbed.worker.kill()
    page.get_by_role("alert").filter(has_text="No connection to the miner").wait_for()
    assert page.get_by_role("button", name="Pause").is_disabled()
    testbed.restart_worker()
    page.get_by_role("alert").wait_for(state="hidden")
    says(page, "waiting for a task")
    assert page.locator("#latest img").count()  # the journal has outlived it
    page.get_by_role("button", name="Drain…").click()
    page.get_by_role("button", name="Drain", exact=True).click()
    page.get_by_role("alert").filter(has_text="has probably exited").wait_for()
    assert testbed.worker.popen.wait(30) == 0
    testbed.worker.kill()
    testbed.restart_worker()
    page.get_by_role("alert").wait_for(state="hidden")
