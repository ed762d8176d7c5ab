"""What a tuning would try on each kind of card of this machine, and how long that takes. Starts no ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from miner.comfy.launch import Launch
from miner.doctor.checks.gpu import our_processes
from miner.doctor.comfy_session import Busy
from miner.doctor.facts import Facts
from miner.doctor.tune_candidates import Card, Vendor, candidates
from miner.doctor.tune_policy import Limits
from miner.doctor.tune_trials import Plan
from miner.machine.benchmarks import Measurement
from miner.machine.gpu import Gpus
from miner.machine.software import Basis, basis
from miner.task.errors import ConfigError
from miner.workflows import Workflow

START = 30.0  # seconds for a ComfyUI to start, as an estimate


def plans(
    facts: Facts, workflows: Sequence[Workflow], *, runs: int, limit: float | None, limits: Limits
) -> tuple[Plan, ...]:
    """One for the first lane of each kind of card. Asks torch for the cards: blocks for seconds.

    Raises ConfigError if another program starts ComfyUI.
    """
    settings, layout = facts.settings, facts.layout()
    home = settings.comfyui.home
    if layout.error is not None:
        raise layout.error
    if home is None:
        hint = "set comfyui.home to the folder of a ComfyUI, so that the miner starts it"
        raise ConfigError("only a ComfyUI that the miner starts can be tuned: comfyui.home is not set", hint=hint)
    gpus, known = facts.gpus(), _known(home)
    found: dict[str, Plan] = {}
    for lane, placement in enumerate(layout.placements):
        launch = placement.launch
        if launch is None:
            continue
        here = basis(home, Path(launch.argv[0]), _gpu(launch))
        if here.card in found:
            continue
        own = settings.comfyui.args
        card = Card(vendor=vendor(gpus, here, own), capability=capability(gpus, here), basis=here, known=known, own=own)
        found[here.card] = Plan(
            settings=settings,
            lane=lane,
            basis=here,
            candidates=candidates(card),
            workflows=workflows,
            runs=runs,
            limit=limit,
            limits=limits,
        )
    return tuple(found.values())


def require_idle(facts: Facts) -> None:
    """Raise Busy while a miner of this state folder runs, or a ComfyUI that one left behind."""
    state = facts.settings.state.dir
    if facts.worker().has_state_lock:
        raise Busy(
            "a miner runs with this state folder",
            hint="stop it (systemctl stop, docker stop, Ctrl-C), tune, and start it again",
        )
    if left := sorted(our_processes(state)):
        hint = f"end it with `kill {left[0]}`, or with a start and stop of xalora-miner run, if it may hold a task"
        raise Busy(f"a ComfyUI that the miner started still runs: process {left[0]}", hint=hint)


def seconds(plan: Plan, measured: Mapping[str, Measurement]) -> tuple[float, float] | None:
    """How long it takes if nothing is faster, and at most; None if a workflow was not benched on this card. Pure."""
    figures = [measured.get(workflow.name) for workflow in plan.workflows]
    known = [one for one in figures if one is not None and plan.basis.card in one.device]
    if len(known) < len(figures):
        return None
    trial = START + sum(one.cold + plan.runs * one.warm for one in known)
    least, most = plan.trials
    return least * trial, most * trial


def vendor(gpus: Gpus, here: Basis, own: Sequence[str]) -> Vendor:
    """Whose card it is. Pure."""
    if "--cpu" in own or not (gpus.gpus or here.card):
        return "cpu"
    return "amd" if "rocm" in here.packages.get("torch", "") else "nvidia"


def capability(gpus: Gpus, here: Basis) -> tuple[int, int] | None:
    """The lowest compute capability of the cards of that name; None if it is unknown. Pure."""
    named = [gpu for gpu in gpus.gpus if gpu.name == here.card] or list(gpus.gpus)
    return min((gpu.compute_capability for gpu in named if gpu.compute_capability is not None), default=None)


def _gpu(launch: Launch) -> str | None:
    return launch.env.get("CUDA_VISIBLE_DEVICES")


def _known(home: Path) -> str:
    try:
        return (home / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    except OSError as error:
        hint = "set comfyui.home to the folder of a ComfyUI"
        raise ConfigError(f"comfyui.home: cannot read comfy/cli_args.py: {error.strerror}", hint=hint) from error
