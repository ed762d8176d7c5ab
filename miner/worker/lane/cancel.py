"""Cancels prompts: by request, then by a restart of ComfyUI, and later if ComfyUI is down. Answers no task.

A prompt may be in ComfyUI although its submission failed: the reply was lost, or ComfyUI takes it late. Once its task
has ended, it is in doubt, and looked for until ComfyUI has denied it for WATCH seconds.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from miner.comfy.client import ComfyFault
from miner.comfy.events import Event
from miner.comfy.follow import PromptLost, follow, look
from miner.comfy.host import ComfyHost
from miner.task.errors import MachineFault
from miner.telemetry.liveness import Liveness

log = structlog.get_logger()

WATCH = 60.0  # seconds in which a ComfyUI that answers may still take a submission that failed
LOOK_EVERY = 2.0  # seconds between looks for prompts in doubt


@dataclass(slots=True)
class _Doubt:
    until: float | None = None  # None: ComfyUI has not been asked yet
    found_at: float | None = None


@dataclass(slots=True, kw_only=True)
class Cancel:
    """One lane's; for its render loop only, except `doubt`."""

    host: ComfyHost
    liveness: Liveness
    grace: float  # seconds
    clock: Callable[[], float]
    on_event: Callable[[Event], None]
    _doubts: dict[str, _Doubt] = field(default_factory=dict)  # by prompt
    _look_at: float = 0.0
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def now(self, prompt_id: str) -> None:
        """Block until the prompt has ended; restart ComfyUI if it ignores the cancel for `grace` seconds."""
        until = self.clock() + self.grace
        if not self.host.ready.is_set():
            self.doubt(prompt_id)
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
            self.doubt(prompt_id)
            self.host.condemn(fault.message)

    def doubt(self, prompt_id: str) -> None:
        """ComfyUI may have this prompt, or get it, and its task has ended. Any thread may call it."""
        with self._mutex:
            self._doubts.setdefault(prompt_id, _Doubt())
            self._look_at = 0.0

    def catch_up(self) -> None:
        """Look for the prompts in doubt, if it is time to, and cancel those that ComfyUI has; a few requests at most.

        A managed ComfyUI that does not let go of one for `grace` seconds is restarted.
        """
        now = self.clock()
        if not self._doubts or now < self._look_at or not self.host.ready.is_set():
            return
        with self._mutex:
            self._look_at = now + LOOK_EVERY
            doubts = list(self._doubts.items())
        for prompt_id, doubt in doubts:
            try:
                over = self._is_over(prompt_id, doubt, now)
            except ComfyFault:
                return  # the caller will notice, too
            if over:
                with self._mutex:
                    del self._doubts[prompt_id]

    def last_words(self) -> None:
        """Cancel the prompts in doubt before the lane ends, whether or not ComfyUI seems ready."""
        with contextlib.suppress(ComfyFault):
            for prompt_id in list(self._doubts):
                self.host.client.cancel(prompt_id)

    def _is_over(self, prompt_id: str, doubt: _Doubt, now: float) -> bool:
        """Whether the prompt needs no more looks; cancels it if ComfyUI has it."""
        try:
            ended = look(self.host.client, prompt_id) is not None
        except PromptLost:
            if doubt.until is None:
                doubt.until = now + WATCH
            return doubt.found_at is not None or now >= doubt.until
        if ended:
            return True
        if doubt.found_at is None:
            log.info("prompt_cancelled", prompt_id=prompt_id, reason="its task has ended")
            doubt.found_at = now
        self.host.client.cancel(prompt_id)
        if now - doubt.found_at >= self.grace and self.host.process is not None:
            self.host.condemn(_ignored(self.grace))
            return True
        return False

    def _tick(self, until: float) -> None:
        self.liveness.beat()
        self.host.check()
        if self.clock() >= until:
            raise MachineFault(_ignored(self.grace))


def _ignored(grace: float) -> str:
    return f"it ignored an interrupt for {grace:.0f} s"
