"""What `xalora-miner bench --tune` chose on this machine, for the ComfyUIs that the miner starts.

One JSON file in the state folder, beside the benchmarks: a choice for each kind of card. Promises: reading never fails;
a choice counts only with the card, driver, ComfyUI and packages that it was measured with; the operator's own win.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from miner.comfy.launch import python_of
from miner.comfy.speed_args import beside
from miner.config import Settings
from miner.machine.benchmarks import save
from miner.machine.software import Basis, basis

FILE = "tuning.json"
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The fastest arguments on one kind of card, and why."""

    basis: Basis  # what it was measured with
    args: tuple[str, ...]  # for main.py, beside the operator's own; empty: the defaults stay
    why: str  # a sentence for the operator
    variants: Mapping[str, str] = field(default_factory=dict)  # workflow → its fastest variant, where not the usual one
    at: float  # Unix seconds
    trials: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)  # what was tried, for people

    @property
    def card(self) -> str:
        return self.basis.card


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What of a choice counts for one ComfyUI now."""

    choice: Choice | None = None  # None: never tuned on this card
    args: tuple[str, ...] = ()
    variants: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[tuple[str, str], ...] = ()  # a tuned argument, and the operator's own that wins
    stale: str = ""  # why the choice does not count: "the driver was 570.86, and is 580.65"
    off: bool = False  # by `comfyui.tuned`

    @property
    def cure(self) -> str:
        """What the operator can do; "" for nothing."""
        return "run `xalora-miner bench --tune`" if self.stale or (self.choice is None and not self.off) else ""

    def says(self) -> str:
        """One sentence for the operator. Pure."""
        choice = self.choice
        if choice is None:
            return "never run on this card"
        if self.off:
            return f"off ([comfyui] tuned is false); chosen: {named(choice.args)}"
        if self.stale:
            return f"does not count: {self.stale}"
        variants = "".join(f"; {workflow} as {variant}" for workflow, variant in self.variants.items())
        won = "".join(f"; {tuned} is left out for your {own}" for tuned, own in self.dropped)
        return f"{named(self.args)}{variants}: {choice.why}{won}"


def named(args: Sequence[str]) -> str:
    """The arguments as text, for people."""
    return " ".join(args) or "ComfyUI's defaults"


def tuned_for(settings: Settings, gpu: str | None) -> Tuned:
    """What counts for the managed ComfyUI of `settings` on `gpu`. Blocks for 0.1 s if there is a choice."""
    comfyui, choices = settings.comfyui, read(settings.state.dir)
    if comfyui.home is None or not choices:
        return Tuned()
    python = comfyui.python or python_of(comfyui.home) or Path("python3")
    return counting(choices, basis(comfyui.home, python, gpu), own=comfyui.args, on=comfyui.tuned)


def counting(choices: Mapping[str, Choice], here: Basis, *, own: Sequence[str], on: bool) -> Tuned:
    """What counts of `choices` (by card) for a ComfyUI with `here` and the operator's `own` arguments. Pure."""
    choice = choices.get(here.card)
    if choice is None or not on:
        return Tuned(choice=choice, off=not on)
    if stale := difference(choice.basis, here):
        return Tuned(choice=choice, stale=stale)
    args, dropped = beside(own, choice.args)
    return Tuned(choice=choice, args=args, variants=choice.variants, dropped=dropped)


def difference(was: Basis, now: Basis) -> str:
    """What changed, as a sentence; "" if nothing did. Pure."""
    pairs = [("the driver", was.driver, now.driver), ("ComfyUI", was.comfyui, now.comfyui)]
    names = sorted({*was.packages, *now.packages})
    pairs += [(name, was.packages.get(name, ""), now.packages.get(name, "")) for name in names]
    changed = [f"{what} was {old or 'missing'}, and is {new or 'missing'}" for what, old, new in pairs if old != new]
    return "; ".join(changed)


def read(state: Path) -> dict[str, Choice]:
    """By card. Reads one small file; raises nothing."""
    try:
        document = json.loads((state / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return parse(document)


def parse(document: Any) -> dict[str, Choice]:
    """The valid choices of a document, by card. Pure."""
    rows = document.get("choices") if isinstance(document, dict) and document.get("schema") == _SCHEMA else None
    found = [_choice(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {one.card: one for one in found if one is not None}


def _choice(row: Mapping[str, Any]) -> Choice | None:
    try:
        packages = {str(name): str(version) for name, version in row["basis"]["packages"].items()}
        named = {name: str(row["basis"][name]) for name in ("card", "driver", "comfyui")}
        if not (isinstance(row["args"], list) and all(isinstance(arg, str) for arg in row["args"])):
            return None
        return Choice(
            basis=Basis(**named, packages=packages),
            args=tuple(row["args"]),
            why=str(row["why"]),
            variants={str(workflow): str(variant) for workflow, variant in row["variants"].items()},
            at=float(row["at"]),
            trials=tuple(trial for trial in row["trials"] if isinstance(trial, dict)),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def write(state: Path, new: Choice) -> Path:
    """Save `new` over an older choice for the same card. Returns the file. Raises MachineFault for disk errors."""
    kept = [asdict(one) for card, one in read(state).items() if card != new.card]
    return save(state / FILE, {"schema": _SCHEMA, "choices": [*kept, asdict(new)]})
