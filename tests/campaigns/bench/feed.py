"""ComfyUI by itself: prompts fed straight into its queue, and what its history says of the time between them.

The history's time stamps are ComfyUI's own, in whole milliseconds, and are there for a prompt whoever sent it; events
go to nobody but the client that submitted. So both the limit and the whole way are read from the history.
"""

from __future__ import annotations

import json
import secrets
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count, pairwise

import requests
import websocket

from miner.task.stages import Graph
from tests.campaigns.bench.table import NotMeasured

QUEUED = 3  # prompts that are always there, the running one among them
SETTLE = 3  # first runs that are not counted
PATIENCE = 60.0  # seconds of silence that mean that something is broken


@dataclass(frozen=True, slots=True)
class Run:
    """One prompt's run by ComfyUI's clock, Unix seconds."""

    started: float  # execution_start
    ended: float  # execution_success


def feed(url: str, graph: Callable[[int, str], Graph], *, seconds: float) -> list[Run]:
    """Keep ComfyUI's queue filled for about `seconds`. `graph` makes one of a number and a filename_prefix."""
    client, numbers, sent, done = f"bench-{uuid.uuid4()}", count(secrets.randbelow(1 << 24)), 0, 0
    with closing(requests.Session()) as session, closing(_connect(url, client)) as events:
        session.trust_env = False
        until = time.monotonic() + seconds
        while done < sent or not sent:
            while sent - done < QUEUED and time.monotonic() < until:
                body = {"prompt": graph(next(numbers), f"bench/{client}/{sent}/out"), "client_id": client}
                reply = session.post(f"{url}/prompt", json=body, timeout=PATIENCE)
                if reply.status_code != 200:
                    raise NotMeasured(f"ComfyUI refused the bench's own graph: {reply.text[:300]}")
                sent += 1
            _wait_for_an_end(events)
            done += 1
    if not (runs := runs_of(url, client)[SETTLE:]):
        raise NotMeasured(f"ComfyUI ran {sent} prompts in {seconds:.0f} s")
    return runs


def runs_of(url: str, client: str) -> list[Run]:
    """The successful runs in the history of clients whose id has `client` in it, in their order."""
    entries = requests.get(f"{url}/history", params={"max_items": "10000"}, timeout=PATIENCE).json().values()
    found = []
    for entry in entries:
        if client in str(entry["prompt"][3].get("client_id", "")):
            at = {kind: data["timestamp"] / 1000 for kind, data in entry["status"]["messages"] if "timestamp" in data}
            if "execution_success" in at:
                found.append(Run(at["execution_start"], at["execution_success"]))
    return sorted(found, key=lambda run: run.started)


def idle_gaps(runs: Sequence[Run]) -> list[float]:
    """Milliseconds in which ComfyUI had nothing to do, between one run and the next."""
    return [(after.started - before.ended) * 1000 for before, after in pairwise(runs)]


def median_gap(runs: Sequence[Run]) -> float:
    """Their median in milliseconds, between the whole ones where it falls there."""
    return statistics.median_grouped([round(gap) for gap in idle_gaps(runs)], 1)


def per_minute(ends: Sequence[float]) -> float:
    """How many a minute, from the first end to the last; Unix seconds."""
    if len(ends) < 2:
        raise NotMeasured(f"only {len(ends)} ended in time")
    return (len(ends) - 1) / (max(ends) - min(ends)) * 60


def _connect(url: str, client: str) -> websocket.WebSocket:
    return websocket.create_connection(f"{url.replace('http', 'ws', 1)}/ws?clientId={client}", timeout=PATIENCE)


def _wait_for_an_end(events: websocket.WebSocket) -> None:
    """Until one prompt has ended: the last of its events is `executing` with no node."""
    while True:
        try:
            frame = events.recv()
        except websocket.WebSocketTimeoutException as error:
            raise NotMeasured(f"ComfyUI said nothing for {PATIENCE:.0f} s") from error
        if not isinstance(frame, str):
            continue
        message = json.loads(frame)
        if message["type"] == "executing" and message["data"]["node"] is None:
            return
