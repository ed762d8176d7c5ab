"""Which prompts are rendered with previews: those that start while somebody looks at the dashboard.

ComfyUI decides when a prompt starts, by what it was submitted with (0.33.0; 0.3.64 draws previews for all). One that
waits in its queue when a page is opened is therefore queued again, in its place; one that runs goes on without.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from miner.comfy.client import ComfyFault
from miner.comfy.host import ComfyHost
from miner.task.ledger import Ledger
from miner.task.stages import Prompted
from miner.telemetry.audience import Audience

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Previews:
    """One lane's. The prepare loop calls `wanted`, the render loop `catch_up`."""

    ledger: Ledger
    host: ComfyHost
    audience: Audience
    _without: set[str] = field(default_factory=set)  # prompts submitted without previews

    def wanted(self, prompt_id: str) -> bool:
        """Whether to submit a prompt with previews."""
        if self.audience.present:
            return True
        self._without.intersection_update(self._open())
        self._without.add(prompt_id)
        return False

    def catch_up(self) -> None:
        """Once a page is open, queue what waits without previews again. Blocks for a few short requests, if any."""
        if not (self._without and self.audience.present and self.host.ready.is_set()):
            return
        open_prompts = self._open()
        try:
            for prompt_id in tuple(self._without):
                # one of an open task that ComfyUI does not have yet is about to be submitted
                if prompt_id not in open_prompts or self.host.client.resubmit(prompt_id):
                    self._without.discard(prompt_id)
        except ComfyFault as fault:
            self._without.clear()  # previews are not worth a second fault
            log.warning("previews_not_shown", reason=fault.message, next="the next task has previews")

    def _open(self) -> set[str]:
        return {task.stage.prompt_id for task in self.ledger.view() if isinstance(task.stage, Prompted)}
