"""The GPUs: which, how new, how much memory, and who else has some of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from miner.comfy import process_tree
from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note, warning
from miner.machine.gpu import Gpu, Gpus, User
from miner.telemetry.health import Mark

GIGABYTE = 10**9
FOREIGN = GIGABYTE  # bytes that others may have before it is worth a warning; a desktop has half of that
OLDEST = (7, 5)
"""Turing. PyTorch's builds for CUDA 12.8 and newer leave out what is older (its release notes, 2.8)."""


def gpu(facts: Facts) -> Iterator[Mark]:
    """The cards that ComfyUI can use. Blocks for seconds: torch is asked in a process of its own."""
    found = facts.gpus()
    if not found.gpus:
        yield no_gpu_mark(facts, found)
        return
    if found.driver:
        yield driver_mark(found)
    if found.problem:
        cure = "install a torch that fits the driver, or update the driver; `nvidia-smi` shows what it takes"
        yield (bad if facts.managed else warning)("GPU", found.problem, cure)
    ours = our_processes(facts.settings.state.dir)
    for card in found.gpus:
        yield card_mark(card)
        yield from memory_marks(card, ours=ours, external=bool(facts.settings.comfyui.url))


def no_gpu_mark(facts: Facts, found: Gpus) -> Mark:
    """No card: a ComfyUI elsewhere may have one, one of ours has to be told."""
    comfyui, says = facts.settings.comfyui, found.problem or "no GPU was found"
    cure = "see that `nvidia-smi` lists it; in a container, that it was started with --gpus all"
    if comfyui.url or facts.embedded:
        return note("GPU", says)
    if "--cpu" in comfyui.args:
        return warning("GPU", f"{says}; [comfyui] args has --cpu, so ComfyUI renders very slowly", cure)
    return bad("GPU", f"{says}, and a ComfyUI without --cpu does not start without one", cure)


def driver_mark(found: Gpus) -> Mark:
    """Pure."""
    torch = f", torch {found.torch}" if found.torch else ""
    return good("Driver", f"{found.driver}, for CUDA up to {found.cuda or 'an unknown version'}{torch}")


def card_mark(card: Gpu) -> Mark:
    """Pure."""
    name, capability = f"GPU {card.index}", card.compute_capability
    says = f"{card.name}, {card.memory_bytes / GIGABYTE:.1f} GB"
    if capability is None:
        return good(name, says)
    says += f", compute capability {capability[0]}.{capability[1]}"
    if capability < OLDEST:
        cure = "keep a torch that is built for CUDA 12.6 or older"
        return warning(name, f"{says}: PyTorch's newer builds leave it out", cure)
    return good(name, says)


def memory_marks(card: Gpu, *, ours: Collection[int], external: bool) -> Iterator[Mark]:
    """How much of a card's memory is free, and who has the rest. `ours` are process ids of our own ComfyUIs.

    `external`: a ComfyUI that was started by somebody else is one of the users, and nobody can say which.
    """
    if card.free_bytes is None:
        return
    name = f"Memory of GPU {card.index}"
    says = f"{card.free_bytes / GIGABYTE:.1f} of {card.memory_bytes / GIGABYTE:.1f} GB are free"
    others = [user for user in card.users if user.pid not in ours]
    taken = sum(user.memory_bytes or 0 for user in others)
    if others:
        says += f"; used by {', '.join(_named(user) for user in others)}"
    if external or taken < FOREIGN:
        yield note(name, says) if others else good(name, says)
    else:
        yield warning(name, says, f"end what is not needed: `ps -fp {','.join(str(user.pid) for user in others)}`")


def our_processes(state: Path) -> frozenset[int]:
    """Ids of the processes of the ComfyUIs that a miner started from this state folder."""
    leaders = [process_tree.find_process(pid) for pid in filter(None, map(_pid, state.glob("comfyui-*/pid")))]
    everyone = process_tree.all_processes() if leaders else ()
    return frozenset(one.pid for leader in leaders if leader for one in process_tree.members(leader, everyone))


def _pid(file: Path) -> int:
    try:
        return int(json.loads(file.read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _named(user: User) -> str:
    try:
        name = Path(f"/proc/{user.pid}/comm").read_text().strip()
    except OSError:  # of another user, or outside of this container
        name = "process"
    amount = f" ({user.memory_bytes / GIGABYTE:.1f} GB)" if user.memory_bytes is not None else ""
    return f"{name} {user.pid}{amount}"
