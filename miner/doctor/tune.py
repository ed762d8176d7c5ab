"""The tuning: which arguments of ComfyUI are the fastest on this card, and then which variant of each workflow.

Arguments are ComfyUI's, so all workflows together choose them; each one chooses its variant, with these arguments.
What wins is rendered in turn with what it would replace before it is kept. Blocks for many renders; writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from miner.comfy.preflight import Machine, check_workflow
from miner.doctor.comfy_session import ComfySession
from miner.doctor.facts import choice_here
from miner.doctor.tune_policy import Trial, Verdict, noise_of, objection, together, verdict, worth_adding
from miner.doctor.tune_trials import Plan, Trials
from miner.machine.tuning import Choice, named
from miner.task.errors import MachineFault, MinerError
from miner.workflows import Workflow


@dataclass(slots=True, kw_only=True)
class Tuning:
    """What was tried, as it comes, and the verdicts."""

    reference: Trial = field(default_factory=lambda: Trial(args=()))
    trials: list[tuple[Trial, str]] = field(default_factory=list)  # and why it is ruled out, or ""
    left_out: dict[str, str] = field(default_factory=dict)  # workflow → why it is not part of it
    noise: float = 0.0  # between two trials of the defaults, as a share
    arguments: Verdict = field(default_factory=lambda: Verdict(best=None, why=""))
    variants: dict[str, Verdict] = field(default_factory=dict)  # of each workflow that has several to try

    @property
    def args(self) -> tuple[str, ...]:
        """The chosen ones."""
        return self.arguments.best.args if self.arguments.best is not None else ()


def tune(plan: Plan, show: Callable[[str], None]) -> Tuning:
    """Try everything, and choose. `show` gets a line before each trial.

    Raises MachineFault if no workflow can be measured with the defaults. The caller holds the lock of the state folder.
    """
    return _Tuner(plan, show).run()


def choice(plan: Plan, found: Tuning) -> Choice:
    """What to keep of a tuning."""
    rows = [(found.reference, ""), *found.trials]
    variants = (f"variants of {name}: {one.why}" for name, one in found.variants.items())
    return Choice(
        basis=plan.basis,
        args=found.args,
        why="; ".join((found.arguments.why, *variants)),
        variants={name: one.best.variant for name, one in found.variants.items() if one.best is not None},
        at=time.time(),
        trials=tuple({**asdict(trial), "ruled_out": reason} for trial, reason in rows),
    )


class _Tuner:
    def __init__(self, plan: Plan, show: Callable[[str], None]) -> None:
        self._plan = plan
        self._trials = Trials(plan, show)
        self._found = Tuning()
        self._workflows = {workflow.name: workflow for workflow in plan.workflows}  # in their usual variants
        self._others: dict[str, tuple[Workflow, ...]] = {}  # the other variants that can run here

    def run(self) -> Tuning:
        self._measure_defaults()
        for candidate in self._plan.tried:
            self._try(candidate.args)
        best = self._combined()
        self._found.arguments = self._in_turn(self._found.reference, best, self._usual, self._usual)
        for workflow in self._usual:
            self._choose_variant(workflow)
        return self._found

    @property
    def _usual(self) -> list[Workflow]:
        return list(self._workflows.values())

    def _objection(self, trial: Trial, reference: Trial | None = None) -> str:
        reference = self._found.reference if reference is None else reference
        return objection(trial, reference, self._plan.limits, noise=self._found.noise)

    def _in_turn(
        self, usual: Trial, best: Trial | None, with_usual: Sequence[Workflow], with_best: Sequence[Workflow]
    ) -> Verdict:
        """`best`, if there is one, against `usual`."""
        rounds: list[tuple[Trial, Trial]] = []
        while best is not None and len(rounds) < self._plan.rounds:
            number = f"round {len(rounds) + 1} of {self._plan.rounds}"
            pair = [
                self._trials.run(_unrun(one), workflows, f"{number}: {one.name}", ruled_out=lambda _: "")
                for one, workflows in ((usual, with_usual), (best, with_best))
            ]
            rounds.append((pair[0], pair[1]))
        return verdict(rounds, self._plan.limits, noise=self._found.noise)

    # ---- the reference --------------------------------------------------------------------------------------------

    def _measure_defaults(self) -> None:
        """The reference, and again: a workflow that fails, or differs from itself, is left out."""
        first = self._defaults("ComfyUI's defaults, the reference")
        again = self._defaults("ComfyUI's defaults again: how much two trials differ")
        for name in list(self._workflows):
            ssim = again.ssim[name]
            if ssim < self._plan.limits.ssim:
                self._leave_out(name, f"two renders of one seed differ (SSIM {ssim:.3f}), so none can be compared")
        self._require_some()
        self._found.reference = replace(
            first,
            warm={name: first.warm[name] for name in self._workflows},
            ssim={name: again.ssim[name] for name in self._workflows},
        )
        self._found.noise = noise_of(self._found.reference, again)

    def _defaults(self, name: str) -> Trial:
        """A trial of the defaults with every workflow that works; the others are left out."""
        while True:
            self._require_some()
            trial = Trial(args=())
            with self._trials.session((), name) as session:
                machine = session.machine(self._plan.workflows)
                for workflow in self._usual:
                    self._pick_variants(workflow, machine)
                    if workflow.name not in self._workflows:
                        continue
                    try:
                        trial = self._trials.added(trial, session, self._workflows[workflow.name])
                    except MinerError as error:
                        self._leave_out(workflow.name, error.message)
                        if _has_ended(session):
                            break  # and so has every other workflow of this trial
                else:
                    self._require_some()
                    return trial

    def _pick_variants(self, workflow: Workflow, machine: Machine) -> None:
        """Once: its usual variant, and the others that can run here."""
        if workflow.name in self._others:
            return
        settings = self._plan.settings
        usual = choice_here(settings, workflow, machine)
        if usual.reasons:
            self._leave_out(workflow.name, usual.reasons[0].text)
            return
        self._workflows[workflow.name] = usual.workflow
        pinned = workflow.name in settings.workflows.variants
        others = [one for one in usual.ranking.variants if one.variant != usual.workflow.variant and not pinned]
        self._others[workflow.name] = tuple(one for one in others if not check_workflow(one, machine))

    def _leave_out(self, name: str, why: str) -> None:
        self._found.left_out[name] = why
        del self._workflows[name]

    def _require_some(self) -> None:
        if not self._workflows:
            reasons = "; ".join(f"{name}: {why}" for name, why in self._found.left_out.items())
            raise MachineFault(f"no workflow can be compared: {reasons}", hint="run xalora-miner doctor --render")

    # ---- arguments ------------------------------------------------------------------------------------------------

    def _try(self, args: tuple[str, ...]) -> tuple[Trial, str]:
        trial = self._trials.run(Trial(args=args), self._usual, named(args), ruled_out=self._objection)
        self._found.trials.append((trial, self._objection(trial)))
        return self._found.trials[-1]

    def _combined(self) -> Trial | None:
        """The fastest single arguments, with each of the others that makes them faster still."""
        found = self._found
        faster = worth_adding([trial for trial, reason in found.trials if not reason], found.reference)
        best = faster[0] if faster else None
        for other in faster[1:]:
            args = together(best.args, other.args) if best is not None else None
            if args is None or set(args) in [set(trial.args) for trial, _ in found.trials]:
                continue
            trial, reason = self._try(args)
            if not reason and best is not None and trial.total < best.total:
                best = trial
        return best

    # ---- variants -------------------------------------------------------------------------------------------------

    def _choose_variant(self, workflow: Workflow) -> None:
        """Its fastest variant, with the arguments that were chosen."""
        others = self._others.get(workflow.name, ())
        if not others:
            return
        usual = self._with_variant(workflow)
        tried = {other.variant: self._with_variant(other) for other in others}
        reasons = {name: self._objection(trial, usual) for name, trial in tried.items()}
        self._found.trials += [(usual, usual.failure), *((trial, reasons[name]) for name, trial in tried.items())]
        faster = worth_adding([trial for name, trial in tried.items() if not reasons[name]], usual)
        best = faster[0] if faster else None
        with_best = [other for other in others if best is not None and other.variant == best.variant]
        self._found.variants[workflow.name] = self._in_turn(usual, best, [workflow], with_best)

    def _with_variant(self, workflow: Workflow) -> Trial:
        trial = Trial(args=self._found.args, workflow=workflow.name, variant=workflow.variant)
        return self._trials.run(trial, [workflow], trial.name, ruled_out=lambda _: "")


def _unrun(trial: Trial) -> Trial:
    return replace(trial, warm={}, ssim={}, failure="")


def _has_ended(session: ComfySession) -> bool:
    return session.host.process is not None and not session.host.process.alive()
