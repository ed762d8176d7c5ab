"""The peak use of video memory, by NVML; unknown without NVML."""

from __future__ import annotations

import threading

from miner.machine.gpu import Nvml

EVERY = 0.05  # seconds between two samples; a sample takes about a millisecond a card


class PeakMemory:
    """A context manager: its thread samples all cards until the `with` ends; the fullest card counts."""

    def __init__(self) -> None:
        self._most: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peak", daemon=True)

    @property
    def memory(self) -> int | None:
        """Bytes in use on one card, by any process."""
        return self._most

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        nvml = Nvml()
        try:
            while True:
                used = [card.memory_used for card in nvml.health() or () if card.memory_used is not None]
                self._most = max((*used, self._most or 0)) if used else self._most
                if not used or self._ended.wait(EVERY):
                    return
        finally:
            nvml.close()
