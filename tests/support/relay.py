"""A TCP relay between two real programs: it holds a request or its reply, cuts connections, and is away on demand.

It promises that a held call stays where it is until the test lets it go or drops it, so that a step is caught without
a race and without a sleep. What it carries is never changed; it replies in the server's place when told to.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PATIENCE = 60.0  # seconds; a call that is held so long was forgotten
VERBS = (b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ")


@dataclass(eq=False, slots=True, kw_only=True)
class Hold:
    """One call that is to be held: the first whose request begins with `request` and that has `has` in it."""

    request: bytes
    has: bytes = b""
    reply: bool = False  # hold the reply, so that the server has acted
    reached: threading.Event = field(default_factory=threading.Event)
    _over: threading.Event = field(default_factory=threading.Event)
    _instead: bytes | None = None

    def wait(self) -> None:
        """Until the call is held."""
        assert self.reached.wait(PATIENCE), f"nobody sent {self.request!r} with {self.has!r}"

    def release(self) -> None:
        """Let it go on."""
        self._over.set()

    def drop(self, instead: bytes = b"") -> None:
        """End its connection; nothing of what was held goes on. The client gets `instead`, or a reset."""
        self._instead = instead
        self._over.set()

    def keep(self) -> bytes | None:
        """Block while it is held; None when it goes on, else what the client gets in its place."""
        self.reached.set()
        self._over.wait(PATIENCE)
        return self._instead


@dataclass(eq=False, slots=True)
class _Pair:
    """A client's connection and ours to the server."""

    client: socket.socket
    server: socket.socket
    request: bytes = b""  # the line of the request that is under way
    deaf: bool = False  # nothing reaches the client any more

    def end(self, last_words: bytes = b"") -> None:
        with contextlib.suppress(OSError):
            if last_words:
                self.client.sendall(last_words)
            else:
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Relay:
    """Listens on a port of its own and passes everything on to `target`, a URL."""

    def __init__(self, target: str) -> None:
        place = urlsplit(target)
        self._target = (place.hostname, place.port)
        self._holds: list[Hold] = []
        self._held: list[Hold] = []  # those that have their call
        self._replies: dict[bytes, bytes] = {}
        self._pairs: list[_Pair] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._deaf: bytes | None = None
        self.seen: list[bytes] = []  # the first line of every request
        self._listener = self._listen(0)
        self.host = "{}:{}".format(*self._listener.getsockname())
        self.url = f"http://{self.host}"

    # ---- what a test does -------------------------------------------------------------------------

    def hold(self, request: str, *, has: str = "", reply: bool = False) -> Hold:
        """Hold the next call like this, or its reply. `request` is how its first line begins."""
        hold = Hold(request=request.encode(), has=has.encode(), reply=reply)
        with self._lock:
            self._holds.append(hold)
        return hold

    def reply(self, request: str, words: bytes) -> None:
        """From now on every request whose first line begins like this gets `words`; the server sees none of them."""
        self._replies[request.encode()] = words

    def pass_on(self) -> None:
        """Reply no more."""
        self._replies.clear()

    def cut(self, request: str) -> int:
        """Reset the connections whose last request began like this; returns their number."""
        with self._lock:
            cut = [pair for pair in self._pairs if pair.request.startswith(request.encode())]
        for pair in cut:
            pair.end()
        return len(cut)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections, and cut the open ones, for as long as the block lasts."""
        port = self._listener.getsockname()[1]
        self._stop_listening()
        self.cut("")
        try:
            yield
        finally:
            self._listener = self._listen(port)

    @contextlib.contextmanager
    def deaf(self, request: str) -> Iterator[None]:
        """Pass on nothing but the first reply to requests like this. Their connections stay deaf after the block."""
        self._deaf = request.encode()
        with self._lock:
            for pair in self._pairs:
                pair.deaf = pair.deaf or pair.request.startswith(self._deaf)
        try:
            yield
        finally:
            self._deaf = None

    def close(self) -> None:
        self._stop_listening()
        for hold in (*self._holds, *self._held):
            hold.drop()
        self.cut("")
        for thread in self._threads:
            thread.join(PATIENCE)

    # ---- passing on -------------------------------------------------------------------------------

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self._start(self._accept, listener)
        return listener

    def _stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._listener.close()

    def _start(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        thread.start()
        self._threads = [*(old for old in self._threads if old.is_alive()), thread]

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket() as server:
            pair = _Pair(client, server)
            with contextlib.suppress(OSError):
                server.connect(self._target)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._pairs.append(pair)
                down = threading.Thread(target=self._pump, args=(pair, True), daemon=True)
                down.start()
                self._pump(pair, False)
                down.join()
            pair.end()
            with self._lock, contextlib.suppress(ValueError):
                self._pairs.remove(pair)

    def _pump(self, pair: _Pair, down: bool) -> None:
        source, sink = (pair.server, pair.client) if down else (pair.client, pair.server)
        try:
            while chunk := source.recv(1 << 18):
                if not down and chunk.startswith(VERBS):
                    pair.request = chunk.partition(b"\r\n")[0]
                    self.seen.append(pair.request)
                    words = next((w for line, w in self._replies.items() if pair.request.startswith(line)), None)
                    if words is not None:
                        pair.end(words)
                        return
                hold = self._claim(pair, chunk, down)
                if hold is not None and (instead := hold.keep()) is not None:
                    pair.end(instead)
                    return
                if not (down and pair.deaf):
                    sink.sendall(chunk)
                if down and self._deaf is not None and pair.request.startswith(self._deaf):
                    pair.deaf = True  # from its handshake on
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side was reset, so the other one is to be
            pair.end()

    def _claim(self, pair: _Pair, chunk: bytes, down: bool) -> Hold | None:
        """The hold that this chunk is for; each holds one call."""
        with self._lock:
            for hold in self._holds:
                if hold.reply == down and pair.request.startswith(hold.request) and hold.has in chunk:
                    self._holds.remove(hold)
                    self._held.append(hold)
                    return hold
        return None
