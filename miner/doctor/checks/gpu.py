"""The GPUs: model, compute capability, memory and what else uses it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from miner.comfy import process_tree
from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note, warning
from miner.machine.gpu import Gpu, Gpus, User
from miner.machine.torch_build import fit
from miner.telemetry.health import Mark
from miner.telemetry.sizes import GIGABYTE, gb

FOREIGN = GIGABYTE  # bytes used by other processes before it is a warning; a desktop uses half of that


def gpu(facts: Facts) -> Iterator[Mark]:
    """The cards that ComfyUI can use. Blocks for seconds: torch runs in its own process."""
    found = facts.gpus()
    if not found.gpus:
        yield no_gpu_mark(facts, found)
        return
    if found.driver:
        yield driver_mark(found)
    yield from torch_marks(facts, found)
    ours = our_processes(facts.settings.state.dir)
    for card in found.gpus:
        yield card_mark(card)
        yield from memory_marks(card, ours=ours, external=bool(facts.settings.comfyui.url))


def no_gpu_mark(facts: Facts, found: Gpus) -> Mark:
    """No card was found; a ComfyUI on another machine may have one, a managed one needs --cpu."""
    comfyui, says = facts.settings.comfyui, found.problem or "no GPU was found"
    cure = "check that `nvidia-smi` lists it; start a container with --gpus all"
    if comfyui.url or facts.embedded:
        return note("GPU", says)
    if "--cpu" in comfyui.args:
        return warning("GPU", f"{says}; ComfyUI renders very slowly with --cpu in [comfyui] args", cure)
    return bad("GPU", f"{says}, and ComfyUI does not start without one, except with --cpu", cure)


def driver_mark(found: Gpus) -> Mark:
    """Pure."""
    return good("Driver", f"{found.driver}, for CUDA up to {found.cuda or 'an unknown version'}")


def torch_marks(facts: Facts, found: Gpus) -> Iterator[Mark]:
    """Whether torch starts CUDA, and fits the driver and the cards. Pure; of an external ComfyUI nothing is known."""
    fitting, worst = fit(found), bad if facts.managed else warning
    if found.problem:
        cure = fitting.cure or "run `nvidia-smi`: if it fails too, reinstall the driver or the NVIDIA container toolkit"
        yield worst("GPU", found.problem, cure)
    if not found.torch or facts.settings.comfyui.url:
        return
    if fitting.level == "good":
        yield good("Torch", f"{found.torch}, for CUDA {found.torch_cuda}" if found.torch_cuda else found.torch)
    else:
        yield (worst if fitting.level == "unusable" else warning)("Torch", fitting.says, fitting.cure)


def card_mark(card: Gpu) -> Mark:
    """Pure."""
    name, capability = f"GPU {card.index}", card.compute_capability
    says = f"{card.name}, {gb(card.memory_bytes)}"
    if capability is None:
        return good(name, says)
    return good(name, f"{says}, compute capability {capability[0]}.{capability[1]}")


def memory_marks(card: Gpu, *, ours: Collection[int], external: bool) -> Iterator[Mark]:
    """How much of a card's memory is free, and which processes use the rest. `ours`: process ids of managed ComfyUIs.

    `external`: the ComfyUI is not managed, so its process is unknown.
    """
    if card.free_bytes is None:
        return
    name = f"Memory of GPU {card.index}"
    says = f"{gb(card.free_bytes)} of {gb(card.memory_bytes)} free"
    others = [user for user in card.users if user.pid not in ours]
    taken = sum(user.memory_bytes or 0 for user in others)
    if others:
        says += f"; used by {', '.join(_named(user) for user in others)}"
    if external or taken < FOREIGN:
        yield note(name, says) if others else good(name, says)
    else:
        yield warning(name, says, f"stop what is not needed: `ps -fp {','.join(str(user.pid) for user in others)}`")


def our_processes(state: Path) -> frozenset[int]:
    """Process ids of the managed ComfyUIs of this state folder."""
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
    except OSError:  # another user's, or outside this container
        name = "process"
    amount = f" ({gb(user.memory_bytes)})" if user.memory_bytes is not None else ""
    return f"{name} {user.pid}{amount}"
