"""The worker's decoders: processes that open pictures in its place.

Promises: callers never wait for one another, since each has a decoder of its own; one is kept ready; after a picture
that ends its decoder, the next one has another.

Never: leaves a decoder running behind.
"""

from __future__ import annotations

import atexit
import base64
import threading
import time

from miner.media.decoding import ANSWERS_AFTER, CPU, LOOK, MEMORY, Answer, Decoder, Died, Refused, Request, Watch
from miner.task.errors import MachineFault

IDLE = 10.0  # seconds until all but one that wait for work are ended
AT_ONCE = 0.05  # seconds: a decoder that dies sooner may not have looked at the picture


class Decoders:
    """Any thread may call. One decoder is kept ready; a thread of its own starts them, since they end with it."""

    def __init__(self, *, memory: int = MEMORY, cpu: float = CPU) -> None:
        self._memory = memory
        self._cpu = cpu
        self._changed = threading.Condition()
        self._free: list[Decoder] = []
        self._busy: set[Decoder] = set()
        self._waiting = 0
        self._fault: MachineFault | None = None  # of the last start
        self._closed = False
        self._starter: threading.Thread | None = None
        self._died_at_once = False  # at the last picture

    def warm(self) -> None:
        """Have one ready soon. Does not block."""
        with self._changed:
            if self._starter is None:
                self._starter = threading.Thread(target=self._keep_one_ready, name="decoders", daemon=True)
                self._starter.start()

    def decode(self, request: Request, *, watch: Watch = lambda: None) -> Answer:
        """The answer of a decoder. Blocks for at most LONGEST seconds, or longer for pictures above the usual size.

        Raises Refused if the picture is at fault (it is broken, or ended the decoder), MachineFault if no decoder
        starts, or decodes not even a picture of ours, and whatever `watch` raises.
        """
        large = request.memory > MEMORY or request.cpu > CPU  # a decoder for it alone
        decoder = Decoder(memory=request.memory, cpu=request.cpu) if large else self._take(watch)
        began = time.monotonic()
        try:
            answer = decoder.ask(request, watch)
        except Died:
            died_after = time.monotonic() - began
        else:
            self._died_at_once = False
            return answer
        finally:
            if large:
                decoder.end()
            else:
                self._give_back(decoder)
        self._suspect(died_after)
        raise Refused(decoder.why())

    def try_own(self) -> None:
        """Decode a picture of ours. Raises MachineFault."""
        try:
            self.decode(_OWN)
        except Refused as refused:
            hint = "see dmesg; install Pillow's wheel for this machine again"
            raise MachineFault(f"the picture decoder fails at a picture of ours: {refused}", hint=hint) from None

    @property
    def pids(self) -> list[int]:
        with self._changed:
            return [decoder.pid for decoder in (*self._free, *self._busy)]

    @property
    def filtered(self) -> bool:
        """Whether seccomp holds for those that run."""
        with self._changed:
            return all(decoder.seccomp for decoder in (*self._free, *self._busy))

    def close(self) -> None:
        """End all of them, busy ones too; later requests raise MachineFault."""
        with self._changed:
            self._closed = True
            doomed = [*self._free, *self._busy]
            self._free.clear()
            self._changed.notify_all()
        for decoder in doomed:
            decoder.end()
        if self._starter is not None:
            self._starter.join(ANSWERS_AFTER)

    def _suspect(self, seconds: float) -> None:
        """After two pictures in a row at which it died at once: see whether it works at all. Raises MachineFault."""
        again, self._died_at_once = self._died_at_once, seconds < AT_ONCE
        if again and self._died_at_once:
            self._died_at_once = False  # no further question while it is answered
            self.try_own()

    def _take(self, watch: Watch) -> Decoder:
        self.warm()
        with self._changed:
            self._waiting += 1
            self._fault = None
            self._changed.notify_all()
            try:
                while not self._closed and not self._fault:
                    while self._free:
                        decoder = self._free.pop()
                        if decoder.alive:
                            self._busy.add(decoder)
                            return decoder
                        decoder.end()
                    self._changed.notify_all()
                    self._changed.wait(LOOK)
                    watch()
                raise self._fault or MachineFault("the picture decoder has ended")
            finally:
                self._waiting -= 1

    def _give_back(self, decoder: Decoder) -> None:
        with self._changed:
            self._busy.discard(decoder)
            if keep := decoder.alive and not decoder.tired and not self._closed:
                self._free.append(decoder)
            self._changed.notify_all()
        if not keep:
            decoder.end()

    # ---- the thread that starts them --------------------------------------------------------------------------------

    def _keep_one_ready(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._wanted():
                    self._changed.wait(IDLE if len(self._free) > 1 else None)
                    self._end_spare()
                if self._closed:
                    return
            self._start_one()

    def _wanted(self) -> bool:
        return len(self._free) < max(self._waiting, 0 if self._busy or self._fault else 1)

    def _end_spare(self) -> None:
        late = time.monotonic() - IDLE
        for decoder in self._free[1:]:
            if decoder.free_since < late:
                self._free.remove(decoder)
                decoder.end()

    def _start_one(self) -> None:
        try:
            decoder = Decoder(memory=self._memory, cpu=self._cpu)
        except MachineFault as fault:
            with self._changed:
                self._fault = fault
                self._changed.notify_all()
            return
        with self._changed:
            if not self._closed:
                self._free.append(decoder)
                self._changed.notify_all()
                return
        decoder.end()


_OWN_PICTURE = base64.b64decode(  # a white pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)
_OWN = Request(
    do="clean", options={"max_pixels": 1}, body=(_OWN_PICTURE,), size=len(_OWN_PICTURE), most=1 << 16, pixels=1
)

shared = Decoders()
"""The whole process's: a decoder knows nothing of lanes."""
atexit.register(shared.close)
