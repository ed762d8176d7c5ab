"""What became of a campaign's tasks: who was blamed, what was burned, what was left behind. It changes nothing."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaigns.chaos.work import Order
from tests.support.files import files_under

OURS = re.compile(r"\b(this|the) miner\b")
"""How an answer says that its miner is to blame."""

HONEST = re.compile("restart|lost|did not reach|shutting down|no longer named|cannot run workflow_id")
"""… before it has looked at the task."""

OTHERS: Mapping[str, re.Pattern[str]] = {
    "upload 403": re.compile("upload target refused"),
    "input 500": re.compile("server answered 500"),
    "input reset": re.compile(r"the connection to the server failed( \(connection reset by peer\))?$"),
}
"""Faults of the consumer's own servers → how their failures may be told."""

TRACE = re.compile(rb"zqx\d+qxz")
SIGNED = re.compile(rb"signature=[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """A fault. Unix seconds."""

    kind: str
    began: float
    ended: float


def wrongly_blamed(order: Order, task: Mapping[str, Any], struck: Counter[str]) -> bool:
    """Whether a failed task blames the one who is not to blame, after faults of such kinds."""
    told = task["msg"] or ""
    if order.blame == "either":
        return False
    if order.blame == "wrong":
        return bool(OURS.search(told)) and not HONEST.search(told)
    return not OURS.search(told) and not any(struck[kind] and words.search(told) for kind, words in OTHERS.items())


def burned(tasks: Iterable[Mapping[str, Any]], orders: Mapping[str, Order], struck: Sequence[Struck]) -> dict[str, int]:
    """Good tasks that failed, by the fault that had struck last."""
    counts: Counter[str] = Counter()
    for task in tasks:
        if task["status"] == "failed" and orders[task["task_id"]].blame == "good":
            before = [fault.kind for fault in struck if fault.began <= task["answered_at"]]
            counts[before[-1] if before else "no fault"] += 1
    return dict(counts.most_common())


def recoveries(tasks: Sequence[Mapping[str, Any]], struck: Iterable[Struck]) -> dict[str, list[float]]:
    """Kind of fault → seconds from its end to the next result of a task that was leased after it."""
    done = sorted(
        (task["answered_at"], task["leases"][-1]["leased_at"]) for task in tasks if task["status"] == "finished"
    )
    found: dict[str, list[float]] = defaultdict(list)
    for fault in struck:
        after = next((at for at, leased in done if leased >= fault.ended), None)
        if after is not None:
            found[fault.kind].append(round(after - fault.ended, 1))
    return dict(found)


def traces(places: Iterable[Path], texts: Mapping[str, bytes], secrets: Mapping[str, str]) -> dict[str, list[str]]:
    """Place → what was found there of the tasks' words, pictures, signatures and credentials.

    `secrets`: what a secret is called → the secret.
    """
    found: dict[str, list[str]] = {}
    for name, data in (*texts.items(), *_files(places)):
        here = {trace.decode() for trace in (*TRACE.findall(data), *SIGNED.findall(data))}
        here |= {called for called, secret in secrets.items() if secret.encode() in data}
        if here:
            found[name] = sorted(here)
    return found


def _files(places: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for place in places:
        for path in [place] if place.is_file() else files_under(place):
            with suppress(FileNotFoundError):  # deleted meanwhile
                if not path.is_symlink():
                    yield f"{place.name}/{path.relative_to(place)}", path.read_bytes()
