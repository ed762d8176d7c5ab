"""Follows one prompt to its end: events for speed, the history and the queue where they leave a doubt.

It promises to notice the end of a prompt however often the stream breaks, and that ComfyUI has lost it. It never
submits, cancels or restarts anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from miner.comfy.client import ComfyClient, ComfyDown, ComfyFault
from miner.comfy.events import Ended, Event, EventStream, Started
from miner.comfy.replies import History, Queue
from miner.task.errors import MachineFault

POLL = 3.0  # seconds between polls while the stream is connected
POLL_BLIND = 0.25  # … and while it is not
POLL_DEAF = 0.5  # … and while it is, but says nothing
WAKE = 0.5  # most seconds between calls of `tick`
PATIENCE = 20.0  # seconds without any answer until ComfyUI counts as down


class PromptLost(MachineFault):
    """The prompt is neither in ComfyUI's queue nor in its history: ComfyUI was restarted, or somebody deleted it."""


class Stalled(ComfyDown):
    """ComfyUI's executing thread is dead or hangs, although it answers (trap 12 of docs/comfyui.md)."""


def follow(
    client: ComfyClient,
    stream: EventStream,
    prompt_id: str,
    *,
    tick: Callable[[], None],
    on_event: Callable[[Event], None],
    look_first: bool = False,
    poll: float = POLL,
    stall: float = float("inf"),
    limit: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Block until `prompt_id` has ended; returns its history.

    `look_first` asks before anything else, for a prompt that may have ended long ago. `poll`: seconds between questions
    while the stream is connected. `tick` is called at least every WAKE seconds and may raise to give up.

    Raises PromptLost; ComfyFault if ComfyUI has not answered for PATIENCE seconds, or only with errors; Stalled if its
    executing thread seems to be dead. Nothing that one can ask tells a dead one from a long node: both are silent, the
    queue shows both as running, and a node may wait for the network without using CPU or GPU; an interrupt would end
    the good one. So a prompt that runs has `limit` seconds, its workflow's own, before silence for `stall` seconds
    counts. One that waits while nothing runs has `stall` seconds alone: a thread that lives would take it.
    """
    if look_first and (history := stream.told.history(prompt_id) or look(client, prompt_id)):
        return history
    connections = stream.connections
    answered_at = looked_at = heard_at = clock()
    state, since = "", looked_at  # what the queue has said about the prompt, and since when
    while True:
        tick()
        event = stream.next(WAKE)
        if event is not None:
            heard_at = clock()
            on_event(event)
        pause = poll if stream.connected else min(poll, POLL_BLIND)
        if not (
            _tells_of_an_end(event, prompt_id) or stream.connections != connections or clock() - looked_at >= pause
        ):
            continue
        connections = stream.connections
        try:
            found = stream.told.history(prompt_id) or _look(client, prompt_id)
            answered_at = clock()
        except ComfyFault:
            if clock() - answered_at >= PATIENCE:
                raise
            found = None
        looked_at = clock()
        if isinstance(found, History):
            return found
        if found is not None:
            now = _state(found, prompt_id)
            since = since if now == state else looked_at
            state = now
        patience = {"running": max(limit, stall), "stands still": stall}.get(state, float("inf"))
        if looked_at - heard_at >= stall and looked_at - since >= patience:
            raise Stalled(
                f"ComfyUI answers, but makes no progress for {looked_at - heard_at:.0f} s",
                hint="see its log and nvidia-smi",
            )


def _state(queue: Queue, prompt_id: str) -> str:
    if prompt_id in queue.running:
        return "running"
    return "waits" if queue.running else "stands still"


def look(client: ComfyClient, prompt_id: str) -> History | None:
    """The prompt's history, or None while it is queued or running. Raises PromptLost, ComfyFault."""
    found = _look(client, prompt_id)
    return found if isinstance(found, History) else None


def _look(client: ComfyClient, prompt_id: str) -> History | Queue:
    """The prompt's history, or else the queue that it is in.

    It reads history, queue and history again: a prompt that ends between the first two is in neither.
    """
    if history := client.history(prompt_id):
        return history
    if (queue := client.queue()).has(prompt_id):
        return queue
    if history := client.history(prompt_id):
        return history
    raise PromptLost("ComfyUI no longer knows the prompt", hint="see its log for a restart")


def _tells_of_an_end(event: Event | None, prompt_id: str) -> bool:
    """Our own end, or the start of another prompt: ComfyUI runs one at a time, in order."""
    if isinstance(event, Ended):
        return event.prompt_id == prompt_id
    return isinstance(event, Started) and event.prompt_id != prompt_id
