"""How far a lane is on its way out."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Signals:
    """`draining`: take nothing new. `aborting`: interrupt what runs, too. Set in that order, never unset."""

    draining: threading.Event = field(default_factory=threading.Event)
    aborting: threading.Event = field(default_factory=threading.Event)
