"""What the trials of a tuning mean. Pure.

Fastest is the least time for one task of each workflow, at its defaults. Arguments that change a workflow's pictures
too much, or slow it down, are ruled out, whatever the others gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from miner.comfy.speed_args import excludes, flags, joined
from miner.machine.tuning import named

MIN_SSIM = 0.9
"""The allowed distance from the reference, as the lowest SSIM. Other rounding (attention in int8, weights in fp8) moves
details of the same picture; 0.9 leaves room for that, and refuses noise, another composition and black frames."""

MIN_GAIN = 0.03
"""A smaller gain is not worth leaving ComfyUI's defaults: it is within what a card's clock and heat do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When arguments are taken."""

    ssim: float = MIN_SSIM
    gain: float = MIN_GAIN  # share of the reference's time


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One ComfyUI with `args`, and what it rendered until something ruled them out."""

    args: tuple[str, ...]
    workflow: str = ""  # of a trial of its variants, the only one
    variant: str = ""  # its variant
    warm: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # workflow → seconds of each warm render
    ssim: Mapping[str, float] = field(default_factory=dict)  # workflow → the lowest against the reference
    failure: str = ""  # why it was ended

    @property
    def name(self) -> str:
        return f"{self.workflow} as {self.variant}" if self.variant else named(self.args)

    def seconds(self, workflow: str) -> float:
        """The median warm render."""
        return median(self.warm[workflow])

    @property
    def total(self) -> float:
        """Seconds for one task of each workflow that it rendered."""
        return sum(self.seconds(workflow) for workflow in self.warm)


def objection(trial: Trial, reference: Trial, limits: Limits, *, noise: float = 0.0) -> str:
    """Why the arguments are ruled out, "" if they are not. Judges a trial that is not finished, too.

    `noise`: how much two trials with equal arguments differ, as a share.
    """
    if flaw := _flaw(trial, limits):
        return flaw
    if flaw := _flaw(reference, limits):
        return f"it cannot be compared, since with {reference.name} {flaw}"
    for workflow in trial.warm:
        slower = trial.seconds(workflow) / reference.seconds(workflow) - 1
        if slower > max(limits.gain, noise):
            return f"{workflow} takes {slower:.0%} longer"
    return ""


def _flaw(trial: Trial, limits: Limits) -> str:
    """Why its times do not count."""
    if trial.failure:
        return trial.failure
    low = ((workflow, ssim) for workflow, ssim in trial.ssim.items() if ssim < limits.ssim)
    return next((f"{workflow} looks different: SSIM {ssim:.3f}, below {limits.ssim:g}" for workflow, ssim in low), "")


def gain(trial: Trial, reference: Trial) -> float:
    """The share of the reference's time that is saved; negative if it takes longer."""
    return 1 - trial.total / max(sum(reference.seconds(workflow) for workflow in trial.warm), 1e-9)


def noise_of(one: Trial, other: Trial) -> float:
    """How much two trials with equal arguments differ, as a share: the workflow that differs most."""
    pairs = [(one.seconds(workflow), other.seconds(workflow)) for workflow in one.warm if workflow in other.warm]
    return max((abs(a - b) / max(min(a, b), 1e-9) for a, b in pairs), default=0.0)


def worth_adding(trials: Iterable[Trial], reference: Trial) -> list[Trial]:
    """The faster ones of `trials` that nothing rules out, best first. Small gains count: they may add up."""
    return sorted((one for one in trials if gain(one, reference) > 0), key=lambda one: -gain(one, reference))


def together(best: Sequence[str], more: Sequence[str]) -> tuple[str, ...] | None:
    """Both arguments as one; None if they exclude each other, or if it would be nothing new."""
    own = [word for flag in flags(best) if flag[0] != "--fast" for word in flag]  # the values of --fast add up
    if any(excludes(own, flag) for flag, *_ in flags(more) if flag not in best):
        return None
    args = joined([best, more])
    return args if args != tuple(best) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to keep, and why."""

    best: Trial | None  # None: what there is without a tuning
    why: str  # a sentence


def verdict(rounds: Sequence[tuple[Trial, Trial]], limits: Limits, *, noise: float) -> Verdict:
    """The first of each pair or the second, which was faster before, by rounds in which they were rendered in turn."""
    if not rounds:
        return Verdict(best=None, why="nothing that was tried is faster and renders the same pictures")
    usual, best = rounds[0]
    for number, (reference, tuned) in enumerate(rounds, 1):
        if reason := objection(tuned, reference, limits, noise=noise):
            return Verdict(best=None, why=f"{best.name} was fastest, but not in round {number}: {reason}")
    gains = [gain(tuned, reference) for reference, tuned in rounds]
    middle = median(gains)
    if middle < limits.gain or min(gains) <= 0:
        saved = f"saves {middle:.1%} ({min(gains):.1%} to {max(gains):.1%} in {len(rounds)} rounds)"
        return Verdict(best=None, why=f"{best.name} {saved}, too little to leave {usual.name}")
    ssim = min(value for _, tuned in rounds for value in tuned.ssim.values())
    what = "" if best.variant else f"{' + '.join(best.warm)} in "
    return Verdict(best=best, why=f"{what}{middle:.0%} less time than {usual.name}, SSIM {ssim:.3f}")
