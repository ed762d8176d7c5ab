"""Follows one prompt to its end: events for speed, the history and the queue for certainty.

It promises to notice the end of a prompt however often the stream breaks, and that ComfyUI has lost it. It never
submits, cancels or restarts anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from miner.comfy.client import ComfyClient, ComfyDown, ComfyFault
from miner.comfy.events import Ended, Event, EventStream, Started
from miner.comfy.replies import History
from miner.task.errors import MachineFault

POLL = 3.0  # seconds between polls while the stream is connected
POLL_BLIND = 0.25  # … and while it is not
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
    stall: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
) -> History:
    """Block until `prompt_id` has ended; returns its history.

    `look_first` polls before anything else, for a prompt that may have ended long ago. `tick` is called at least every
    WAKE seconds and may raise to give up. Raises PromptLost; ComfyFault if ComfyUI has not answered for PATIENCE
    seconds, or only with errors; Stalled if it answers, but sent no event for `stall` seconds.
    """
    if look_first and (history := look(client, prompt_id)):
        return history
    connections = stream.connections
    answered_at = looked_at = heard_at = clock()
    while True:
        tick()
        event = stream.next(WAKE)
        if event is not None:
            heard_at = clock()
            on_event(event)
        elif clock() - heard_at >= stall:
            raise Stalled(
                f"ComfyUI answers, but makes no progress for {stall:.0f} s", hint="see its log and nvidia-smi"
            )
        poll = POLL if stream.connected else POLL_BLIND
        if not (_tells_of_an_end(event, prompt_id) or stream.connections != connections or clock() - looked_at >= poll):
            continue
        connections = stream.connections
        try:
            history = look(client, prompt_id)
            answered_at = clock()
        except ComfyFault:
            if clock() - answered_at >= PATIENCE:
                raise
            history = None
        looked_at = clock()
        if history is not None:
            return history


def look(client: ComfyClient, prompt_id: str) -> History | None:
    """The prompt's history, or None while it is queued or running. Raises PromptLost, ComfyFault.

    It reads history, queue and history again: a prompt that ends between the first two is in neither.
    """
    if history := client.history(prompt_id):
        return history
    if client.queue().has(prompt_id):
        return None
    if history := client.history(prompt_id):
        return history
    raise PromptLost("ComfyUI no longer knows the prompt", hint="see its log for a restart")


def _tells_of_an_end(event: Event | None, prompt_id: str) -> bool:
    """Our own end, or the start of another prompt: ComfyUI runs one at a time, in order."""
    if isinstance(event, Ended):
        return event.prompt_id == prompt_id
    return isinstance(event, Started) and event.prompt_id != prompt_id
