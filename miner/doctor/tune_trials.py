"""Trials of a tuning: each one a ComfyUI of its own, from its start to its end.

It takes the place of a lane's, its folder and port, under the lock of the state folder: no miner renders beside it, and
one that a killed tuning left behind is ended by the lane's next start. Whatever fails in a trial is its result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from miner.comfy.preflight import offered_loras
from miner.config import Settings
from miner.doctor.bench import PICTURE_SIZE
from miner.doctor.comfy_session import ComfySession, managed_session
from miner.doctor.selftest import random_picture
from miner.doctor.similarity import frames_of, similarity
from miner.doctor.trial_render import PICTURE_URL, render, trial_render
from miner.doctor.tune_candidates import Candidate
from miner.doctor.tune_policy import Limits, Trial
from miner.machine.software import Basis
from miner.task.errors import ConfigError, MachineFault, MinerError
from miner.worker.layout import layout
from miner.workflows import Workflow
from miner.workflows.parameters import SeedParameter

_SEED = 1_000_000  # of the first render; the others count up
_HANGS = 3.0  # times the slowest warm render of the reference
_SHORTEST = 10.0  # seconds for any render

Frames = tuple[Image.Image, ...]


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
    rounds: int = 2  # of the usual and the fastest in turn, before that is taken

    @property
    def tried(self) -> list[Candidate]:
        return [one for one in self.candidates if not one.skipped]

    @property
    def trials(self) -> tuple[int, int]:
        """How many trials it takes if nothing is faster, and at most; of one workflow for those of variants."""
        count, others = len(self.tried), [len(workflow.variants) - 1 for workflow in self.workflows]
        least = 2 + count + sum(1 + number for number in others if number)
        contests = [count, *others]
        return least, least + max(count - 1, 0) + sum(2 * self.rounds for number in contests if number)


class Trials:
    """Runs trials. The pictures of each workflow's first one are those that all others are compared with."""

    def __init__(self, plan: Plan, show: Callable[[str], None]) -> None:
        """`show` gets a line before each trial."""
        self._plan = plan
        self._show = show
        self._pictures: dict[str, list[Frames]] = {}  # by workflow: each render's
        self._slowest: dict[str, float] = {}  # by workflow: seconds of a warm render in its first trial

    def run(
        self, trial: Trial, workflows: Sequence[Workflow], name: str, *, ruled_out: Callable[[Trial], str]
    ) -> Trial:
        """`trial` with the renders of `workflows`, until something rules it out. Blocks."""
        try:
            with self.session(trial.args, name) as session:
                for workflow in workflows:
                    trial = self.added(trial, session, workflow)
                    if ruled_out(trial):
                        break
        except MinerError as error:
            trial = replace(trial, failure=" ".join(filter(None, (error.message, error.hint and f"({error.hint})"))))
        return trial

    @contextmanager
    def session(self, args: tuple[str, ...], name: str) -> Iterator[ComfySession]:
        """A ComfyUI with `args` before the operator's own. Raises MachineFault if it does not start."""
        self._show(f"{name} …")
        settings = self._plan.settings
        comfyui = settings.comfyui.model_copy(update={"tuned": False, "args": (*args, *settings.comfyui.args)})
        placement = layout(settings.model_copy(update={"comfyui": comfyui}))[self._plan.lane]
        if placement.launch is None:
            raise ConfigError("comfyui.url: another program starts this ComfyUI", hint="set comfyui.home instead")
        with managed_session(placement, settings, placement.launch) as session:
            yield session

    def added(self, trial: Trial, session: ComfySession, workflow: Workflow) -> Trial:
        """`trial` with one more workflow. Raises MinerError if a render fails or takes too long."""
        name, seconds, ssim = workflow.name, [], 1.0
        first, loras = self._pictures.setdefault(name, []), offered_loras(session.machine([workflow]))
        session.host.client.free()
        for number in range(1 + self._plan.runs):
            took, frames = self._rendered(session, workflow, number, loras)
            seconds.append(took)
            if len(first) == number:
                first.append(frames)
            ssim = min(ssim, similarity(frames, first[number]))
            if ssim < self._plan.limits.ssim:
                break
        self._slowest.setdefault(name, max(seconds[1:], default=0.0))
        warm, alike = {**trial.warm, name: tuple(seconds[1:])}, {**trial.ssim, name: ssim}
        return replace(trial, warm=warm, ssim=alike)

    def _rendered(
        self, session: ComfySession, workflow: Workflow, number: int, loras: Sequence[str]
    ) -> tuple[float, Frames]:
        """Seconds, and the picture or frames, of a render that is the same in every trial."""
        process, kept = session.host.process, []
        python = process.launch.argv[0] if process is not None else sys.executable

        def keep(path: Path) -> None:
            kept.append(frames_of(path, python))
            path.unlink(missing_ok=True)

        prompt = f"lighthouse number {number} by the sea"
        parameters = workflow.example(loras=loras, image=PICTURE_URL, smallest=False, prompt=prompt)
        for seed, parameter in workflow.manifest.parameters.items():
            if isinstance(parameter, SeedParameter):
                parameters[seed] = parameter.min + (_SEED + number) % (parameter.max - parameter.min + 1)
        picture, limit = random_picture(PICTURE_SIZE, seed=number), self._limit(workflow, number)
        trial = trial_render(session, workflow, parameters, loras=loras, picture=picture, limit=limit)
        one = render(session, trial, keep=keep)
        if not one.ok or one.seconds is None:
            raise MachineFault(one.says.removeprefix("failed: "), hint=one.cure)
        return one.seconds, kept[0]

    def _limit(self, workflow: Workflow, number: int) -> float:
        """Seconds. A first render may compile kernels; the others are about as fast as the reference, or of no use."""
        limit = self._plan.limit or workflow.manifest.timeout_seconds
        slowest = self._slowest.get(workflow.name) if number else None
        return limit if slowest is None else min(limit, max(_SHORTEST, _HANGS * slowest))
