"""Submitting, the queue, the history, interrupting, freeing."""

from __future__ import annotations

import time
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from miner.engine.api.body import BROKEN, read_object
from miner.engine.prompts import Submission
from miner.engine.state import Engine, engine_of
from miner.engine.validate import Malformed, Problem, Validation, problem

_SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")  # never shown again
_BAD_ID = problem(
    "invalid_prompt_id",
    "prompt_id must be a valid UUID",
    "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server generate one",
)
_NO_PROMPT = problem("no_prompt", "No prompt provided", "No prompt provided")


async def submit(request: Request) -> Response:
    engine, body = engine_of(request), await read_object(request)
    number = _number(engine, body)
    if "prompt" not in body:
        return _refusal(_NO_PROMPT)
    prompt_id = body.get("prompt_id")
    if prompt_id is None:
        prompt_id = str(uuid.uuid4())
    elif engine.dialect.canonical_ids and not _canonical(prompt_id):
        return _refusal(_BAD_ID)
    validation = Validation(prompt=body["prompt"], nodes=engine.nodes, folders=engine.folders, dialect=engine.dialect)
    try:
        verdict = validation.verdict()
    except Malformed as error:
        raise BROKEN from error
    if verdict.error:
        return _refusal(verdict.error, verdict.node_errors)
    submission = Submission(
        number=number,
        prompt_id=str(prompt_id),
        prompt=body["prompt"],
        extra=_extra(engine, body),
        outputs=verdict.outputs,
    )
    engine.prompts.put(submission)
    return JSONResponse({"prompt_id": submission.prompt_id, "number": number, "node_errors": verdict.node_errors})


def _number(engine: Engine, body: dict[str, Any]) -> float:
    """Its place in the queue. A prompt that is refused has used up a number all the same."""
    if "number" in body:
        try:
            return float(body["number"])
        except (TypeError, ValueError) as error:
            raise BROKEN from error
    number = next(engine.numbers)
    return -number if body.get("front") else number


def _canonical(prompt_id: object) -> bool:
    try:
        return isinstance(prompt_id, str) and str(uuid.UUID(prompt_id)) == prompt_id
    except ValueError:
        return False


def _extra(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    extra = {key: value for key, value in (body.get("extra_data") or {}).items() if key not in _SECRETS}
    if "client_id" in body:
        extra["client_id"] = body["client_id"]
    if engine.dialect.dates_prompts:
        extra["create_time"] = int(time.time() * 1000)
    return extra


def _refusal(error: Problem, node_errors: Any = None) -> Response:
    return JSONResponse({"error": error, "node_errors": node_errors or {}}, status_code=400)


async def remaining(request: Request) -> Response:
    return JSONResponse({"exec_info": {"queue_remaining": engine_of(request).prompts.remaining()}})


async def queue(request: Request) -> Response:
    running, waiting = engine_of(request).prompts.queue()
    return JSONResponse(
        {"queue_running": [one.wire() for one in running], "queue_pending": [one.wire() for one in waiting]}
    )


async def change_queue(request: Request) -> Response:
    prompts, body = engine_of(request).prompts, await read_object(request)
    if body.get("clear"):
        prompts.clear()
    for prompt_id in body.get("delete", ()):
        prompts.delete(prompt_id)
    return Response()


async def history(request: Request) -> Response:
    query = request.query_params
    try:
        most = int(query["max_items"]) if "max_items" in query else None
        offset = int(query.get("offset", -1))
    except ValueError as error:
        raise BROKEN from error
    return JSONResponse(engine_of(request).prompts.history(most=most, offset=offset))


async def history_of(request: Request) -> Response:
    prompt_id = request.path_params["prompt_id"]
    entry = engine_of(request).prompts.done(prompt_id)
    return JSONResponse({prompt_id: entry} if entry else {})


async def change_history(request: Request) -> Response:
    prompts, body = engine_of(request).prompts, await read_object(request)
    if body.get("clear"):
        prompts.forget_all()
    for prompt_id in body.get("delete", ()):
        prompts.forget(prompt_id)
    return Response()


async def interrupt(request: Request) -> Response:
    """With a prompt_id: only if that is what runs. Without: whatever runs."""
    engine = engine_of(request)
    prompt_id = (await read_object(request, optional=True)).get("prompt_id")
    if prompt_id:
        engine.prompts.interrupt(prompt_id)
    else:
        engine.interrupt.ask()
    return Response()


async def free(request: Request) -> Response:
    body = await read_object(request)
    if body.get("free_memory") or body.get("unload_models"):
        engine_of(request).prompts.free(memory=bool(body.get("free_memory")))
    return Response()


ROUTES = (
    Route("/prompt", submit, methods=["POST"]),
    Route("/prompt", remaining),
    Route("/queue", queue),
    Route("/queue", change_queue, methods=["POST"]),
    Route("/history", history),
    Route("/history", change_history, methods=["POST"]),
    Route("/history/{prompt_id}", history_of),
    Route("/interrupt", interrupt, methods=["POST"]),
    Route("/free", free, methods=["POST"]),
)
