"""Whose network failed: this machine's, or that of the one server which a task names.

The evidence is a control: can this machine look up and reach the sequencer, which it talks to all the time? `is_ours`
is the rule. Promises: a control takes at most LONGEST seconds, and one per FRESH seconds is made, whatever tasks name.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Literal
from urllib.parse import urlsplit

from miner.net.addresses import PORTS, is_literal, is_public
from miner.net.environment import trust
from miner.net.errors import Kind, Unreached
from miner.net.session import Resolve, resolve
from miner.task.errors import MachineFault, Retryable

Control = Literal["good", "local", "no name", "no connection", "no trust"]
"""The sequencer is reached · it is reached within a private network, which says nothing of the Internet · its name has
no address · nothing connects to it · it has no valid certificate, which it had before: an intruding proxy, or our
clock."""

LONGEST = 5.0  # seconds of a control
FRESH = 1.0  # seconds for which it holds: one from before an outage says nothing of it
WRONG_CLOCK = 3600.0  # seconds off the sequencer's clock, from which on no certificate's dates can be judged

_OURS: dict[Kind, frozenset[Control]] = {
    "ours": frozenset({"good", "local", "no name", "no connection", "no trust"}),
    "look-up": frozenset({"local", "no name", "no connection", "no trust"}),
    "name": frozenset({"no name"}),
    "address": frozenset({"no name", "no connection", "no trust"}),
    "connection": frozenset({"no name", "no connection", "no trust"}),
    "certificate": frozenset({"no name", "no connection", "no trust"}),
    "answer": frozenset({"no trust"}),
}


def is_ours(kind: Kind, control: Control) -> bool:
    """Whether a failure is this machine's. A server that is down while the sequencer answers is the task's; so is a
    name that nobody knows, unless the sequencer's is not known either. A wrong answer is only ours if someone answers
    for the sequencer too, without its certificate. Pure.
    """
    return control in _OURS[kind]


class NetworkFault(MachineFault):
    """This machine's network, resolver, certificates or clock failed."""

    fault = "network"


class Egress:
    """The control, and the sequencer's clock. Any thread may use it."""

    def __init__(self, url: str = "", *, resolve: Resolve = resolve, clock: Callable[[], float] = time.time) -> None:
        """`url`: the sequencer's; without one, every failure is the task's."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or PORTS.get(parts.scheme, 0)
        self._tls = parts.scheme == "https"
        self._resolve = resolve
        self._clock = clock
        self._ahead = 0.0
        self._lock = threading.Lock()
        self._control: Control = "good"
        self._checked_at = float("-inf")

    def heard(self, date: float) -> None:
        """The sequencer answered just now, at `date` by its clock (Unix seconds)."""
        self._ahead = self._clock() - date

    def time(self) -> float:
        """Unix seconds by the sequencer's clock: a signature must not depend on ours."""
        return self._clock() - self._ahead

    def judge(self, error: Retryable, *, who: str) -> None:
        """Raise NetworkFault if an exchange with `who` failed for a reason of this machine's. Blocks for LONGEST at
        most.
        """
        kind: Kind = error.kind if isinstance(error, Unreached) else "answer"
        if isinstance(error, Unreached) and error.clock and abs(self._ahead) > WRONG_CLOCK:
            hint = "Turn on time synchronization: timedatectl set-ntp true"
            raise NetworkFault(f"{who}: this machine's clock is off by {abs(self._ahead) / 3600:.0f} h", hint=hint)
        if kind == "ours":
            raise NetworkFault(
                f"{who}: {error.message}", hint="Check the open files' limit, memory, and CA certificates."
            )
        control = self.control()
        if is_ours(kind, control):
            hint = "Check this machine's network, DNS, clock and CA certificates: xalora-miner doctor"
            raise NetworkFault(f"{who}: {error.message}; for the sequencer there is {_SAID[control]}", hint=hint)

    def control(self) -> Control:
        if not self._host:
            return "good"
        with self._lock:
            if time.monotonic() - self._checked_at >= FRESH:
                self._control = self._check()
                self._checked_at = time.monotonic()
            return self._control

    def _check(self) -> Control:
        ends = time.monotonic() + LONGEST
        found = [self._host] if is_literal(self._host) else self._look_up()
        if not found:
            return "no name"
        for address in found[:3]:
            with suppress(OSError):
                left = max(ends - time.monotonic(), 0.1)
                with closing(socket.create_connection((address, self._port), timeout=left / 2)) as sock:
                    if self._tls and not self._is_trusted(sock):
                        return "no trust"
                    return "good" if is_public(address) else "local"
        return "no connection"

    def _look_up(self) -> Sequence[str]:
        """In another thread, since a look-up cannot be interrupted."""
        found: list[Sequence[str]] = []

        def run() -> None:
            with suppress(OSError, UnicodeError):
                found.append(self._resolve(self._host, self._port))

        thread = threading.Thread(target=run, name="resolve", daemon=True)
        thread.start()
        thread.join(LONGEST / 2)
        return found[0] if found else ()

    def _is_trusted(self, sock: socket.socket) -> bool:
        """Raises OSError where the handshake fails otherwise."""
        options = trust().options()
        try:
            context = ssl.create_default_context(cafile=options.get("ca_certs"), capath=options.get("ca_cert_dir"))
            with context.wrap_socket(sock, server_hostname=self._host):
                return True
        except ssl.SSLError:
            return False


_SAID: dict[Control, str] = {
    "good": "an answer",
    "local": "an answer from a private network",
    "no name": "no address either",
    "no connection": "no connection either",
    "no trust": "no valid certificate either",
}
