"""The end of a prompt that must not go on: gently, then with a new process, and later where ComfyUI is away.

It decides of no task's outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from miner.comfy.client import ComfyDown
from miner.comfy.events import Event
from miner.comfy.follow import PromptLost, follow
from miner.comfy.host import ComfyHost
from miner.task.errors import MachineFault
from miner.telemetry.liveness import Liveness


@dataclass(slots=True, kw_only=True)
class Cancel:
    """One lane's; used by its render loop alone."""

    host: ComfyHost
    liveness: Liveness
    grace: float  # seconds
    clock: Callable[[], float]
    on_event: Callable[[Event], None]
    _doomed: list[str] = field(default_factory=list)  # prompts given up while ComfyUI was away

    def now(self, prompt_id: str) -> None:
        """Block until the prompt has ended; where ComfyUI ignores that for `grace` seconds, it is condemned."""
        until = self.clock() + self.grace
        if not self.host.ready.is_set():
            self._doomed.append(prompt_id)
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
            return  # a waiting prompt that is deleted leaves no trace
        except MachineFault as fault:
            self.host.condemn(fault.message)

    def overdue(self) -> None:
        """ComfyUI is there again: end what was given up meanwhile."""
        while self._doomed and self.host.ready.is_set():
            try:
                self.host.client.cancel(self._doomed[-1])
            except ComfyDown as down:
                self.host.suspect(down.message)
                return
            self._doomed.pop()

    def _tick(self, until: float) -> None:
        self.liveness.beat()
        self.host.check()
        if self.clock() >= until:
            raise MachineFault(f"it ignored an interrupt for {self.grace:.0f} s")
