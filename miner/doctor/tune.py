"""The tuning: trials of ComfyUI's arguments, each in a ComfyUI of its own, and the choice between them.

A trial's ComfyUI takes the place of a lane's, its folder and port, under the lock of the state folder: no miner renders
beside it, and one that a killed tuning left behind is ended by the lane's next start. Whatever fails in a trial rules
its arguments out. Blocks for many renders; writes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from PIL import Image

from miner.comfy.preflight import check_workflow, offered_loras
from miner.config import Settings
from miner.doctor.bench import PICTURE_SIZE
from miner.doctor.comfy_session import ComfySession, managed_session
from miner.doctor.selftest import random_picture
from miner.doctor.similarity import frames_of, similarity
from miner.doctor.trial_render import PICTURE_URL, render, trial_render
from miner.doctor.tune_candidates import Candidate
from miner.doctor.tune_policy import Limits, Trial, Verdict, noise_of, objection, together, verdict, worth_adding
from miner.machine.software import Basis
from miner.machine.tuning import Choice
from miner.task.errors import ConfigError, MachineFault, MinerError
from miner.worker.layout import layout
from miner.workflows import Workflow
from miner.workflows.parameters import SeedParameter

ROUNDS = 2  # of the defaults and the fastest arguments in turn, before these are taken
_SEED = 1_000_000  # of the first render; the others count up
_HANGS = 3.0  # times the slowest warm render of the defaults
_SHORTEST = 10.0  # seconds for any render

Frames = tuple[Image.Image, ...]
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to try on one lane."""

    settings: Settings
    lane: int  # its place in the layout
    basis: Basis
    candidates: Sequence[Candidate]
    workflows: Sequence[Workflow]
    runs: int  # warm renders of each workflow in a trial
    limit: float | None  # seconds for one render; None: the workflow's own
    limits: Limits

    @property
    def tried(self) -> list[Candidate]:
        return [one for one in self.candidates if not one.skipped]

    @property
    def trials(self) -> tuple[int, int]:
        """How many ComfyUIs it starts: if nothing is faster, and at most."""
        count = len(self.tried)
        return (2 + count, 2 + count + max(count - 1, 0) + 2 * ROUNDS) if count else (0, 0)


@dataclass(slots=True, kw_only=True)
class Tuning:
    """What was tried, as it comes, and the verdict."""

    reference: Trial = field(default_factory=lambda: Trial(args=()))
    trials: list[tuple[Trial, str]] = field(default_factory=list)  # and why it is ruled out, or ""
    left_out: dict[str, str] = field(default_factory=dict)  # workflow → why it is not part of it
    noise: float = 0.0  # between two trials of the defaults, as a share
    verdict: Verdict = field(default_factory=lambda: Verdict(args=(), why=""))


def tune(plan: Plan, show: Show) -> Tuning:
    """Try everything, and choose. `show` gets a line before each trial.

    Raises MachineFault if no workflow can be measured with the defaults. The caller holds the lock of the state folder.
    """
    return _Tuner(plan, show).run()


def choice(plan: Plan, found: Tuning) -> Choice:
    """What to keep of a tuning."""
    rows = [(found.reference, ""), *found.trials]
    return Choice(
        basis=plan.basis,
        args=found.verdict.args,
        why=found.verdict.why,
        at=time.time(),
        trials=tuple({**asdict(trial), "ruled_out": reason} for trial, reason in rows),
    )


class _Tuner:
    def __init__(self, plan: Plan, show: Show) -> None:
        self._plan = plan
        self._show = show
        self._found = Tuning()
        self._workflows = list(plan.workflows)
        self._pictures: dict[str, list[Frames]] = {}  # of the first trial, by workflow: each render's

    def run(self) -> Tuning:
        found = self._found
        self._measure_defaults()
        for candidate in self._plan.tried:
            self._try(candidate.args)
        best = self._combined()
        rounds: list[tuple[Trial, Trial]] = []
        while best is not None and len(rounds) < ROUNDS:
            name = f"round {len(rounds) + 1} of {ROUNDS}"
            rounds.append((self._trial((), f"{name}: the defaults"), self._trial(best.args, f"{name}: {best.name}")))
        found.verdict = verdict(rounds, self._plan.limits, noise=found.noise)
        return found

    def _measure_defaults(self) -> None:
        """The reference, and again: a workflow that fails, or differs from itself, is left out."""
        first = self._defaults("ComfyUI's defaults, the reference")
        again = self._defaults("ComfyUI's defaults again: how much two trials differ")
        for workflow in list(self._workflows):
            ssim = again.ssim[workflow.name]
            if ssim < self._plan.limits.ssim:
                self._leave_out(workflow, f"two renders of one seed differ (SSIM {ssim:.3f}), so none can be compared")
        self._require_some()
        names = [workflow.name for workflow in self._workflows]
        self._found.reference = replace(
            first, warm={name: first.warm[name] for name in names}, ssim={name: again.ssim[name] for name in names}
        )
        self._found.noise = noise_of(self._found.reference, again)

    def _try(self, args: tuple[str, ...]) -> tuple[Trial, str]:
        trial = self._trial(args, " ".join(args))
        self._found.trials.append((trial, self._objection(trial)))
        return self._found.trials[-1]

    def _combined(self) -> Trial | None:
        """The fastest single arguments, with each of the others that makes them faster still."""
        found = self._found
        faster = worth_adding([trial for trial, reason in found.trials if not reason], found.reference)
        best = faster[0] if faster else None
        for other in faster[1:]:
            args = together(best.args, other.args) if best is not None else None
            if args is None or args in [trial.args for trial, _ in found.trials]:
                continue
            trial, reason = self._try(args)
            if not reason and best is not None and trial.total < best.total:
                best = trial
        return best

    def _objection(self, trial: Trial) -> str:
        return objection(trial, self._found.reference, self._plan.limits, noise=self._found.noise)

    def _leave_out(self, workflow: Workflow, why: str) -> None:
        self._found.left_out[workflow.name] = why
        self._workflows.remove(workflow)

    def _require_some(self) -> None:
        if not self._workflows:
            reasons = "; ".join(f"{name}: {why}" for name, why in self._found.left_out.items())
            raise MachineFault(f"no workflow can be compared: {reasons}", hint="run xalora-miner doctor --render")

    # ---- one trial ------------------------------------------------------------------------------------------------

    def _defaults(self, name: str) -> Trial:
        """A trial of the defaults with every workflow that works; the others are left out."""
        while True:
            self._require_some()
            trial = Trial(args=())
            with self._session((), name) as session:
                machine = session.machine(self._workflows)
                for workflow in list(self._workflows):
                    if reasons := check_workflow(workflow, machine):
                        self._leave_out(workflow, reasons[0].text)
                        continue
                    try:
                        trial = self._added(trial, session, workflow)
                    except MinerError as error:
                        self._leave_out(workflow, error.message)
                        if _has_ended(session):
                            break  # and so has every other workflow of this trial
                else:
                    self._require_some()
                    return trial

    def _trial(self, args: tuple[str, ...], name: str) -> Trial:
        """One ComfyUI from its start to its end. Whatever fails is its result."""
        trial = Trial(args=args)
        try:
            with self._session(args, name) as session:
                for workflow in self._workflows:
                    trial = self._added(trial, session, workflow)
                    if args and self._objection(trial):
                        break
        except MinerError as error:
            trial = replace(trial, failure=" ".join(filter(None, (error.message, error.hint and f"({error.hint})"))))
        return trial

    @contextmanager
    def _session(self, args: tuple[str, ...], name: str) -> Iterator[ComfySession]:
        self._show(f"{name} …")
        settings = self._plan.settings
        comfyui = settings.comfyui.model_copy(update={"tuned": False, "args": (*args, *settings.comfyui.args)})
        placement = layout(settings.model_copy(update={"comfyui": comfyui}))[self._plan.lane]
        if placement.launch is None:
            raise ConfigError("comfyui.url: another program starts this ComfyUI", hint="set comfyui.home instead")
        with managed_session(placement, settings, placement.launch) as session:
            yield session

    def _added(self, trial: Trial, session: ComfySession, workflow: Workflow) -> Trial:
        """The trial with one more workflow. Raises MinerError if a render fails or takes too long."""
        name, seconds, ssim = workflow.name, [], 1.0
        first = self._pictures.setdefault(name, [])
        session.host.client.free()
        for number in range(1 + self._plan.runs):
            took, frames = self._rendered(session, workflow, number)
            seconds.append(took)
            if len(first) == number:
                first.append(frames)
            ssim = min(ssim, similarity(frames, first[number]))
            if trial.args and ssim < self._plan.limits.ssim:
                break
        warm, alike = {**trial.warm, name: tuple(seconds[1:])}, {**trial.ssim, name: ssim}
        return replace(trial, warm=warm, ssim=alike)

    def _rendered(self, session: ComfySession, workflow: Workflow, number: int) -> tuple[float, Frames]:
        """Seconds, and the picture or frames, of a render that is the same in every trial."""
        loras, kept = offered_loras(session.machine([workflow])), []
        process = session.host.process
        python = process.launch.argv[0] if process is not None else sys.executable

        def keep(path: Path) -> None:
            kept.append(frames_of(path, python))
            path.unlink(missing_ok=True)

        parameters = workflow.example(
            loras=loras, image=PICTURE_URL, smallest=False, prompt=f"lighthouse number {number} by the sea"
        )
        for seed, parameter in workflow.manifest.parameters.items():
            if isinstance(parameter, SeedParameter):
                parameters[seed] = parameter.min + (_SEED + number) % (parameter.max - parameter.min + 1)
        picture, limit = random_picture(PICTURE_SIZE, seed=number), self._limit(workflow, number)
        one = render(
            session,
            trial_render(session, workflow, parameters, loras=loras, picture=picture, limit=limit),
            keep=keep,
        )
        if not one.ok or one.seconds is None:
            raise MachineFault(one.says, hint=one.cure)
        return one.seconds, kept[0]

    def _limit(self, workflow: Workflow, number: int) -> float:
        """Seconds. A first render may compile kernels; the others are about as fast as the defaults', or of no use."""
        limit = self._plan.limit or workflow.manifest.timeout_seconds
        usual = self._found.reference.warm.get(workflow.name)
        return min(limit, max(_SHORTEST, _HANGS * max(usual))) if usual and number else limit


def _has_ended(session: ComfySession) -> bool:
    return session.host.process is not None and not session.host.process.alive()
