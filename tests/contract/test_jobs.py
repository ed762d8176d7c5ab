"""The newer version's /api/jobs, and its absence in the older one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .graphs import simple
from .test_endings import start
from .wire import Comfy

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def jobs(comfy: Comfy) -> Callable[[str], Any]:
    """Asks for `/api/jobs` + path."""
    if not comfy.newer:
        pytest.skip("the older version has no jobs")
    return lambda path: comfy.get(f"/api/jobs{path}").json()


def test_the_older_version_has_no_jobs(comfy: Comfy) -> None:
    if comfy.newer:
        pytest.skip("the newer version has jobs")
    assert comfy.get("/api/jobs").status_code == 404
    assert comfy.get(f"/api/jobs/{NOBODY}").status_code == 404
    assert comfy.post(f"/api/jobs/{NOBODY}/cancel", json={}).status_code in (404, 405)


def test_a_job_waits_runs_and_can_be_cancelled(comfy: Comfy, jobs: Callable[[str], Any]) -> None:
    with comfy.stream() as stream:
        running = start(comfy, stream)
        waiting = comfy.submit(simple(), client_id=stream.client)
        for prompt_id, status in ((running, "in_progress"), (waiting, "pending")):
            found = jobs(f"/{prompt_id}")
            assert (found.pop("id"), found.pop("status")) == (prompt_id, status)
            assert set(found) == {"priority", "create_time", "outputs_count", "previewable_outputs_count"}
        assert comfy.post(f"/api/jobs/{waiting}/cancel", json={}).json() == {"cancelled": True}
        assert comfy.get(f"/api/jobs/{waiting}").status_code == 404
        assert comfy.post(f"/api/jobs/{running}/cancel", json={}).json() == {"cancelled": True}
        stream.until_done(running)
    found = jobs(f"/{running}")
    assert found["status"] == "cancelled"
    assert found["execution_end_time"] >= found["execution_start_time"] >= found["create_time"]
    assert comfy.history(waiting) is None


def test_a_job_that_is_done_shows_everything(comfy: Comfy, jobs: Callable[[str], Any]) -> None:
    ran = comfy.run(simple(), extra_data={"extra_pnginfo": {"workflow": {"id": "w-1"}}})
    found = jobs(f"/{ran.prompt_id}")
    assert found["status"] == "completed"
    assert found["outputs"] == ran.entry["outputs"]
    assert found["execution_status"] == ran.entry["status"]
    assert found["workflow"] == {"prompt": ran.entry["prompt"][2], "extra_data": ran.entry["prompt"][3]}
    assert found["preview_output"] == {**ran.files[0], "nodeId": "2", "mediaType": "images"}
    assert (found["outputs_count"], found["previewable_outputs_count"], found["workflow_id"]) == (1, 1, "w-1")


def test_a_job_that_failed_says_why(comfy: Comfy, jobs: Callable[[str], Any]) -> None:
    graph = simple()
    graph["2"]["inputs"]["filename_prefix"] = "../../outside"
    ran = comfy.run(graph)
    found = jobs(f"/{ran.prompt_id}")
    assert (found["status"], found["execution_error"]) == ("failed", ran.message("execution_error"))


def test_jobs_are_listed_newest_first_in_pages(comfy: Comfy, jobs: Callable[[str], Any]) -> None:
    ids = [comfy.run(simple()).prompt_id for _ in range(3)]
    found = jobs("?limit=2&status=completed")
    assert [job["id"] for job in found["jobs"]] == [ids[2], ids[1]]
    assert found["pagination"].keys() == {"offset", "limit", "total", "has_more"}
    assert (found["pagination"]["has_more"], found["pagination"]["offset"]) == (True, 0)
    assert jobs("?limit=1&offset=2&status=completed")["jobs"][0]["id"] == ids[0]
    assert jobs("?limit=1&sort_order=asc&status=completed")["jobs"][0]["create_time"] <= found["jobs"][1]["create_time"]
    assert jobs("?status=pending")["jobs"] == []
    assert "outputs" not in found["jobs"][0]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "offset=x", "status=nope", "sort_by=nope", "sort_order=nope"])
@pytest.mark.usefixtures("jobs")
def test_a_wrong_query_is_refused(comfy: Comfy, query: str) -> None:
    answer = comfy.get(f"/api/jobs?{query}")
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_a_job_that_is_not_there(comfy: Comfy, jobs: Callable[[str], Any]) -> None:
    assert jobs(f"/{NOBODY}") == {"error": "Job not found"}
    assert comfy.post(f"/api/jobs/{NOBODY}/cancel", json={}).json() == {"cancelled": False}


@pytest.mark.usefixtures("jobs")
def test_a_job_that_is_done_cannot_be_cancelled(comfy: Comfy) -> None:
    ran = comfy.run(simple())
    assert comfy.post(f"/api/jobs/{ran.prompt_id}/cancel", json={}).json() == {"cancelled": False}
