"""Samples of the GPUs by NVML, for the last fifteen minutes.

Without GPUs, driver or permission the list is empty. Never imports torch or creates a CUDA context.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from miner.machine.gpu import GpuHealth, Nvml

EVERY = 5.0  # seconds between two samples
SPAN = 15 * 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample of one card. None: not reported."""

    at: float  # seconds of `telemetry.clock`: only their differences count
    load: float | None  # 0 to 1
    memory: int | None  # bytes in use by all processes
    temperature: float | None  # °C
    power: float | None  # W


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU and its samples, oldest first."""

    index: int
    name: str
    memory_total: int | None  # bytes
    samples: tuple[Sample, ...]

    @property
    def latest(self) -> Sample:
        return self.samples[-1]


class Gpus:
    """Call `sample` and `close` from one thread, `cards` from any. The first sample opens NVML."""

    def __init__(self) -> None:
        self._nvml: Nvml | None = None
        self._mutex = threading.Lock()
        self._cards: dict[int, GpuHealth] = {}
        self._samples: dict[int, deque[Sample]] = {}

    def sample(self, now: float) -> None:
        """Sample every card. Blocks for about 1 ms per card."""
        self._nvml = self._nvml or Nvml()
        health = self._nvml.health() or ()
        with self._mutex:
            for card in health:
                self._cards[card.index] = card
                self._samples.setdefault(card.index, deque(maxlen=int(SPAN / EVERY))).append(_sample(card, now))

    def cards(self) -> tuple[Card, ...]:
        with self._mutex:
            return tuple(
                Card(
                    index=index,
                    name=card.name,
                    memory_total=card.memory_total,
                    samples=tuple(self._samples[index]),
                )
                for index, card in sorted(self._cards.items())
            )

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.close()


def _sample(card: GpuHealth, now: float) -> Sample:
    return Sample(at=now, load=card.load, memory=card.memory_used, temperature=card.temperature, power=card.power)
