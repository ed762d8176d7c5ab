"""The newer ComfyUI's /api/jobs: one view of what waits, runs and is done, and one way to cancel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from miner.engine.prompts import Prompts, Submission
from miner.engine.state import engine_of

_STATES = ("pending", "in_progress", "completed", "failed", "cancelled")
_ENDS = {"execution_success": "completed", "execution_error": "failed", "execution_interrupted": "cancelled"}
_SORTS = ("created_at", "execution_duration")


class _BadQueryError(ValueError):
    """A parameter is wrong; the message is for the client."""


def waiting(submission: Submission, state: str) -> dict[str, Any]:
    return _without_none(
        {
            "id": submission.prompt_id,
            "status": state,
            "priority": submission.number,
            "create_time": submission.extra.get("create_time"),
            "outputs_count": 0,
            "previewable_outputs_count": 0,
            "workflow_id": _workflow(submission.extra),
        }
    )


def done(entry: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """A job from its entry in the history. `whole`: with its outputs, messages and graph."""
    number, prompt_id, prompt, extra, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    end = next(event for event in _ENDS if event in messages)
    files = list(_files(entry["outputs"]))
    saved = [file for file in files if file["type"] == "output"] or files
    job = _without_none(
        {
            "id": prompt_id,
            "status": _ENDS[end],
            "priority": number,
            "create_time": extra.get("create_time"),
            "execution_start_time": messages["execution_start"]["timestamp"],
            "execution_end_time": messages[end]["timestamp"],
            "execution_error": messages.get("execution_error"),
            "outputs_count": len(files),
            "previewable_outputs_count": len(files),
            "preview_output": saved[0] if saved else None,
            "workflow_id": _workflow(extra),
        }
    )
    if whole:
        workflow = {"prompt": prompt, "extra_data": extra}
        job |= {"outputs": entry["outputs"], "execution_status": entry["status"], "workflow": workflow}
    return job


def _files(outputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for node, shown in outputs.items():
        for file in shown.get("images", ()):  # the only key under which our nodes show files
            yield {**file, "nodeId": node, "mediaType": "images"}


def _workflow(extra: Mapping[str, Any]) -> Any:
    return ((extra.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")


def _without_none(job: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in job.items() if value is not None}


async def listing(request: Request) -> Response:
    try:
        jobs, offset, limit = _select(engine_of(request).prompts, request.query_params)
    except _BadQueryError as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    page = jobs[offset:][:limit]
    more = offset + len(page) < len(jobs)
    pagination = {"offset": offset, "limit": limit, "total": len(jobs), "has_more": more}
    return JSONResponse({"jobs": page, "pagination": pagination})


def _select(prompts: Prompts, query: Mapping[str, str]) -> tuple[list[dict[str, Any]], int, int | None]:
    """The jobs that are asked for, in order; the offset; the limit."""
    states = [state.strip().lower() for state in query.get("status", "").split(",") if state.strip()]
    if unknown := [state for state in states if state not in _STATES]:
        raise _BadQueryError(f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(_STATES)}")
    sort, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
    if sort not in _SORTS:
        raise _BadQueryError("sort_by must be 'created_at' or 'execution_duration'")
    if order not in ("asc", "desc"):
        raise _BadQueryError("sort_order must be 'asc' or 'desc'")
    limit = _integer(query, "limit")
    if limit is not None and limit <= 0:
        raise _BadQueryError("limit must be a positive integer")
    jobs = [job for job in _all(prompts) if not states or job["status"] in states]
    if workflow := query.get("workflow_id"):
        jobs = [job for job in jobs if job.get("workflow_id") == workflow]
    jobs.sort(key=_created if sort == "created_at" else _duration, reverse=order == "desc")
    return jobs, max(0, _integer(query, "offset") or 0), limit


def _integer(query: Mapping[str, str], name: str) -> int | None:
    try:
        return int(query[name]) if name in query else None
    except ValueError:
        raise _BadQueryError(f"{name} must be an integer") from None


def _all(prompts: Prompts) -> Iterator[dict[str, Any]]:
    running, pending = prompts.queue()
    yield from (waiting(one, "in_progress") for one in running)
    yield from (waiting(one, "pending") for one in pending)
    yield from (done(entry, whole=False) for entry in prompts.history().values())


def _created(job: Mapping[str, Any]) -> int:
    return int(job.get("create_time", 0))


def _duration(job: Mapping[str, Any]) -> int:
    return int(job.get("execution_end_time", 0)) - int(job.get("execution_start_time", 0))


async def one(request: Request) -> Response:
    prompts, job_id = engine_of(request).prompts, request.path_params["job_id"]
    entry = prompts.done(job_id)
    if entry:
        return JSONResponse(done(entry, whole=True))
    running, pending = prompts.queue()
    for submissions, state in ((running, "in_progress"), (pending, "pending")):
        for submission in submissions:
            if submission.prompt_id == job_id:
                return JSONResponse(waiting(submission, state))
    return JSONResponse({"error": "Job not found"}, status_code=404)


async def cancel(request: Request) -> Response:
    """Running: interrupted. Waiting: deleted. Anything else: nothing to cancel."""
    prompts, job_id = engine_of(request).prompts, request.path_params["job_id"]
    return JSONResponse({"cancelled": prompts.interrupt(job_id) or prompts.delete(job_id)})


ROUTES = (
    Route("/api/jobs", listing),
    Route("/api/jobs/{job_id}", one),
    Route("/api/jobs/{job_id}/cancel", cancel, methods=["POST"]),
)
