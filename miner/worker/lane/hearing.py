"""Whether ComfyUI's event stream still tells of prompts: one that is connected and silent is noticed, and mended.

After SILENT prompts in a row whose end only the history told, the stream is connected anew. If the next one is silent,
too, a managed ComfyUI is restarted between tasks, and the operator of another one is told. From the first notice until
something is heard, ends are asked for more often. Prompts that ran while the stream was not connected do not count, nor
does one of which anything is heard, however late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from miner.comfy.events import Event, Preview
from miner.comfy.follow import POLL, POLL_DEAF
from miner.comfy.host import ComfyHost
from miner.telemetry import clock, metrics

log = structlog.get_logger()

SILENT = 2  # prompts in a row
DRAIN = 0.2  # seconds for events that are on their way
MARGIN = 1.0  # seconds that the stream must have been connected before a prompt was submitted

_REASON = "its event stream is connected, but told nothing of the last prompts"
_NEXT = {
    "reconnected": "connecting again, and asking for ends more often",
    "restarted": "restarting it between two tasks",
    "told": "asking for ends more often; restart your ComfyUI, and check a proxy before it",
}


@dataclass(slots=True, kw_only=True)
class Hearing:
    """One lane's; for its render loop only. `host.deaf` is for everybody."""

    host: ComfyHost
    on_event: Callable[[Event], None]
    clock: Callable[[], float] = clock.now
    heard_at: float = 0.0  # the last event; Unix seconds
    restart_wanted: bool = False  # of a managed ComfyUI, between two tasks
    _silent: int = 0  # prompts in a row
    _done: tuple[str, ...] = ()  # since something was last heard
    _heard: deque[str] = field(default_factory=lambda: deque(maxlen=64))  # prompts

    @property
    def poll(self) -> float:
        """Seconds between questions for a prompt's end."""
        return POLL_DEAF if self.host.deaf else POLL

    def note(self, event: Event) -> None:
        """Something was heard."""
        self.heard_at = self.clock()
        if not isinstance(event, Preview) and event.prompt_id not in self._heard:
            self._heard.append(event.prompt_id)
        if self.host.deaf:
            log.info("comfyui_heard_again", next="waiting for its events")
        self.host.deaf, self.restart_wanted, self._silent, self._done = False, False, 0, ()

    def ended(self, prompt_id: str, *, after: float) -> None:
        """A prompt has ended, `after` seconds after it was submitted. Blocks for DRAIN seconds if nothing was heard of
        it."""
        stream = self.host.stream
        if prompt_id in self._heard or stream.connected_for < after + MARGIN:
            return
        if (event := stream.next(DRAIN)) is not None:
            self.on_event(event)
            return
        self._silent += 1
        if self._silent >= SILENT and (action := self._next_action()):
            self.host.deaf = True
            self._done = (*self._done, action)
            metrics.COMFYUI_DEAF.labels(action).inc()
            log.warning("comfyui_deaf", action=action, reason=_REASON, next=_NEXT[action])

    def _next_action(self) -> Literal["reconnected", "restarted", "told"] | None:
        if not self._done:
            self._silent = SILENT - 1  # the next one shows
            self.host.stream.reconnect()
            return "reconnected"
        if self.host.process is not None and "restarted" not in self._done:
            self._silent = 0
            self.restart_wanted = True
            return "restarted"
        return None if "told" in self._done else "told"
