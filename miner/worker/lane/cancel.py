"""Cancels prompts: by request, then by a restart of ComfyUI, and later if ComfyUI is down. Answers no task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from miner.comfy.client import ComfyFault
from miner.comfy.events import Event
from miner.comfy.follow import PromptLost, follow
from miner.comfy.host import ComfyHost
from miner.task.errors import MachineFault
from miner.telemetry.liveness import Liveness


@dataclass(slots=True, kw_only=True)
class Cancel:
    """One lane's; for its render loop only."""

    host: ComfyHost
    liveness: Liveness
    grace: float  # seconds
    clock: Callable[[], float]
    on_event: Callable[[Event], None]
    _postponed: list[str] = field(default_factory=list)  # prompts to cancel once ComfyUI is back

    def now(self, prompt_id: str) -> None:
        """Block until the prompt has ended; restart ComfyUI if it ignores the cancel for `grace` seconds."""
        until = self.clock() + self.grace
        if not self.host.ready.is_set():
            self._postponed.append(prompt_id)
            return
        try:
            self.host.client.cancel(prompt_id)
            follow(
                self.host.client,
                self.host.stream,
                prompt_id,
                tick=lambda: self._tick(until),
                on_event=self.on_event,
            )
        except PromptLost:
            return  # deleted from the queue
        except MachineFault as fault:
            self.host.condemn(fault.message)

    def run_postponed(self) -> None:
        """ComfyUI is back: cancel the postponed prompts."""
        while self._postponed and self.host.ready.is_set():
            try:
                self.host.client.cancel(self._postponed[-1])
            except ComfyFault as fault:
                self.host.suspect(fault.message)
                return
            self._postponed.pop()

    def _tick(self, until: float) -> None:
        self.liveness.beat()
        self.host.check()
        if self.clock() >= until:
            raise MachineFault(f"it ignored an interrupt for {self.grace:.0f} s")
