"""Cleans up after tasks: keeps a thumbnail for the history and erases the rest, here and in ComfyUI.

The ledger hands over tasks with an outcome or taken away. Their files are erased task by task, in turns that begin
EVERY second; a turn ends with what several tasks share: ComfyUI's log, one request for its history, one commit and the
journal's write-ahead log. What cannot be erased now is tried again, with back-off and after a restart; the sweep at the
start finds what no journal knows. Runs in the deliver loop's thread, while ComfyUI renders the next prompt.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from miner.comfy.host import ComfyHost, folder_of
from miner.comfy.leftovers import remove_tree, sweep
from miner.media.thumbnail import thumbnail
from miner.task.errors import MachineFault
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.policy import backoff
from miner.task.prompt_ids import is_of
from miner.task.stages import Answered, OutputFile, Places, TaskInHand

log = structlog.get_logger()

TOLD_AFTER = 3  # attempts; a ComfyUI that restarts needs a few
LONGEST_PAUSE = 300.0  # seconds between two attempts
EVERY = 1.0  # seconds from a turn's end to the next one
MOST = 50  # tasks in a turn
LATE = 2.0  # seconds after which a task's cleanup no longer waits for a lull
THUMBNAILS = 8.0  # in a row; one more each second
AT_THE_END = 10.0  # seconds for all that is due when the lane ends


@dataclass(slots=True, kw_only=True)
class _Due:
    task_id: str
    places: Places
    file: Path | None = None  # its result, if it needs a thumbnail
    strings: tuple[str, ...] | None = None  # of the task; None: an earlier run's, and erased
    since: float = 0.0  # when it was leased
    attempts: int = 0
    at: float = 0.0  # not before, by `clock`


@dataclass(slots=True, kw_only=True)
class _Erased:
    """A task without files, but for those that are left."""

    due: _Due
    folders: tuple[str, ...]  # that could not be deleted
    prompts: tuple[str, ...]  # that have files left
    why: str


@dataclass(slots=True, kw_only=True)
class Cleanup:
    """One lane's. Call `add` from any thread, the rest from one."""

    ledger: Ledger
    host: ComfyHost
    journal: Journal
    thumbnails: bool  # keep some
    state: Path  # the state folder
    clock: Callable[[], float] = time.monotonic
    finished: dict[str, Path] = field(default_factory=dict)  # task → its result file
    failing: int = 0  # tasks whose places cannot be cleaned
    why: str = ""  # for one of them
    _due: deque[_Due] = field(default_factory=deque)
    _later: list[_Due] = field(default_factory=list)  # failed before
    _erased: list[_Erased] = field(default_factory=list)  # in this turn
    _next_turn: float = 0.0  # not before, by `clock`
    _thumbnails: float = THUMBNAILS  # that may be made now
    _counted_at: float = 0.0  # when that was so
    _recovered: bool = False  # the tasks of earlier runs are in hand
    _history_swept: bool = False
    _rng: random.Random = field(default_factory=random.Random)

    def add(self, task: TaskInHand) -> None:
        """Queue a finished task."""
        success = isinstance(task.stage, Answered) and task.stage.outcome.success
        file = self.finished.pop(task.task_id, None)
        known = task.lease.target is not None  # it has not been erased
        self._due.append(
            _Due(
                task_id=task.task_id,
                places=task.places,
                file=file if success and self.thumbnails else None,
                strings=tuple(task.lease.strings()) if known else None,
                since=task.lease.leased_at,
                at=self.clock(),
            )
        )

    def restore(self) -> None:
        """Queue the tasks of earlier runs. Raises MachineFault if the journal cannot be read."""
        self._due.extend(
            _Due(task_id=task_id, places=places) for task_id, places in self.journal.uncleaned(self.ledger.miner_id)
        )

    def sweep(self) -> None:
        """Delete what earlier runs left and no journal knows. Call it once the tasks of earlier runs are in hand."""
        keep, mine = self.ledger.prompts(), self._is_mine
        reasons = self.host.leftovers.sweep(keep=keep, mine=mine)
        for parent in (*self.state.glob("lane-*"), *self.state.glob("comfyui-*/*put/xalora")):  # of former lanes, too
            reasons += sweep(parent, keep=keep, mine=mine)
        self._recovered = True
        if reasons:
            log.warning(
                "leftovers_not_deleted", reason=reasons[0], count=len(reasons), next="the next start tries again"
            )

    def _is_mine(self, prompt_id: str) -> bool:
        return is_of(prompt_id, self.ledger.miner_id)

    @property
    def _must_sweep(self) -> bool:
        return self._recovered and not self._history_swept and self.host.ready.is_set()

    def _sweep_history(self) -> None:
        """Queue what ComfyUI remembers of this miner and no task in hand owns, once it is ready for the first time."""
        self._history_swept = True
        try:
            prompts = self.host.leftovers.known(keep=self.ledger.prompts(), mine=self._is_mine)
        except MachineFault as fault:
            log.info("history_not_swept", reason=fault.message, next="the next start looks again")
            return
        self._due.extend(_Due(task_id="", places=Places(prompts=(prompt,)), strings=()) for prompt in prompts)

    def next_in(self) -> float | None:
        """Seconds until there is something to do; None: nothing."""
        if self._erased or self._must_sweep:
            return 0.0
        waits = [due.at for due in self._later]
        if self._due or self.journal.must_forget:
            waits.append(self._next_turn)
        return max(min(waits) - self.clock(), 0.0) if waits else None

    @property
    def late(self) -> bool:
        """Whether a task has waited for too long: results come too fast for lulls."""
        oldest = self._erased[0].due if self._erased else next(iter(self._due), None)
        return oldest is not None and self.clock() - oldest.at >= LATE

    def run_next(self) -> None:
        """Erase one task's files, if any are due, or end the turn."""
        if self._must_sweep:
            self._sweep_history()
        if len(self._erased) < MOST and (due := self._next()) is not None:
            try:
                self._erased.append(self._erase(due))
            except Exception as error:
                log.exception("cleanup_failed", task_id=due.task_id, next="trying again; please report this bug")
                self._again(due, type(error).__name__)
        elif self._erased or (self.journal.must_forget and self.clock() >= self._next_turn):
            self._end_turn()

    def run_rest(self) -> None:
        """Clean up after all that are due, at the end of the lane; what fails is left to the next start."""
        until = self.clock() + AT_THE_END
        while (self._due or self._erased) and self.clock() < until:
            self._next_turn = 0.0
            self.run_next()
        self._forget()

    def _next(self) -> _Due | None:
        now = self.clock()
        if self._due and (self._erased or now >= self._next_turn):
            return self._due.popleft()
        for due in self._later:
            if due.at <= now:
                self._later.remove(due)
                return due
        return None

    def _erase(self, due: _Due) -> _Erased:
        """Erase what is one task's alone."""
        file, due.file = due.file, None  # one try: a picture that breaks the decoder must not keep its files here
        if file is not None and self._may_draw():
            self._keep_thumbnail(due.task_id, file)
        places, reasons, prompts = due.places, [], []
        for prompt_id in places.prompts:
            if why := self.host.discard(prompt_id, _files(places, prompt_id), ended=prompt_id in places.ended):
                reasons.append(why)
                prompts.append(prompt_id)
        folders = tuple(folder for folder in places.folders if remove_tree(Path(folder).resolve()))
        reasons += [f"cannot delete {folder}" for folder in folders]
        return _Erased(due=due, folders=folders, prompts=tuple(prompts), why=next(iter(reasons), ""))

    def _end_turn(self) -> None:
        """Erase what several tasks share, record what is left, and queue that again."""
        erased, self._erased = self._erased, []
        try:
            left = self._erase_shared(erased)
        except Exception as error:
            log.exception("cleanup_failed", next="trying again; please report this bug")
            left = [(one.due, one.due.places, type(error).__name__) for one in erased]
        for due, places, why in left:
            due.places = places
            if places != Places():
                self._again(due, why)
            elif due.attempts >= TOLD_AFTER:
                self.failing -= 1
                log.info("cleanup_done", task_id=due.task_id)
        self._forget()
        self._next_turn = self.clock() + EVERY

    def _erase_shared(self, erased: Sequence[_Erased]) -> list[tuple[_Due, Places, str]]:
        """Returns what is left of each, and why."""
        self._scrub_log([one.due for one in erased if one.due.places.prompts and not one.due.places.scrubbed])
        forgotten = [prompt for one in erased for prompt in one.due.places.prompts if prompt not in one.prompts]
        why = self.host.forget(forgotten) if forgotten else ""
        left = [(one.due, _left(one, history=bool(why)), one.why or why) for one in erased]
        changed = {due.task_id: places for due, places, _ in left if due.task_id and places != due.places}
        if changed:
            self.ledger.cleaned(changed)
        return left

    def _scrub_log(self, dues: Sequence[_Due]) -> None:
        strings: list[str] | None = []
        for due in dues:
            strings = None if strings is None or due.strings is None else [*strings, *due.strings]
        if dues:
            self.host.scrub_log(strings, since=min(due.since for due in dues))
        for due in dues:
            due.strings = ()

    def _again(self, due: _Due, reason: str) -> None:
        due.attempts += 1
        due.at = self.clock() + backoff(due.attempts, rng=self._rng, base=1.0, cap=LONGEST_PAUSE, at_least=0.5)
        self._later.append(due)
        if due.attempts == TOLD_AFTER:
            self.failing += 1
            self.why = reason
            log.warning(
                "cleanup_delayed", task_id=due.task_id, reason=reason, next="trying again, after a restart, too"
            )

    def _forget(self) -> None:
        """Empty the journal's log. A reader may prevent that: then it is tried again."""
        try:
            self.journal.forget()
        except MachineFault as fault:
            log.error("journal_not_emptied", reason=fault.message, hint=fault.hint, next="trying again")

    def _may_draw(self) -> bool:
        """Whether to make a thumbnail now: where tasks take seconds, of each; else of some, since a decoder needs 10 ms
        for one."""
        now = self.clock()
        self._thumbnails = min(self._thumbnails + now - self._counted_at, THUMBNAILS)
        self._counted_at = now
        if self._thumbnails < 1:
            return False
        self._thumbnails -= 1
        return True

    def _keep_thumbnail(self, task_id: str, file: Path) -> None:
        if (made := thumbnail(file)) is None:
            return
        try:
            self.journal.record_thumbnail(
                self.ledger.miner_id, task_id, width=made.width, height=made.height, thumbnail=made.webp
            )
        except MachineFault as fault:
            log.error("thumbnail_not_kept", task_id=task_id, reason=fault.message, next="continuing without it")


def _left(one: _Erased, *, history: bool) -> Places:
    """The places that are still to be cleaned; `history`: so are the entries of all prompts."""
    places = one.due.places
    prompts = places.prompts if history else one.prompts
    return replace(places, prompts=prompts, folders=one.folders, scrubbed=True) if prompts or one.folders else Places()


def _files(places: Places, prompt_id: str) -> list[OutputFile]:
    """Those that are known of a prompt, should its history be gone."""
    folder = folder_of(prompt_id)
    inputs = [OutputFile(filename=f"{name}.png", subfolder=folder, kind="input") for name in places.inputs]
    return [*inputs, *(file for file in places.files if file.subfolder == folder)]
