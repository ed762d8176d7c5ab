"""What several checks need, found once and shared between their threads.

Promises: reads only. It creates no folder of the miner, keeps no lock and asks for no task.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from miner.comfy.client import ComfyClient, ComfyDown, ComfyFault
from miner.comfy.launch import embedded_launch
from miner.comfy.preflight import Machine, installed_loras, machine_of
from miner.comfy.process import ComfyProcess
from miner.comfy.replies import Stats
from miner.comfy.variant_choice import Choice, choose_variant
from miner.config import Loaded, Settings
from miner.config.settings import State
from miner.dashboard.bind import url_of
from miner.dashboard.client import StatusClient
from miner.machine.cards import cards_of, compute_capabilities
from miner.machine.gpu import Gpus, probe_for
from miner.machine.software import version_of
from miner.models.catalogue import FileStatus, files_of
from miner.models.disk import disk_errors
from miner.models.folders import folders_of
from miner.models.hash_db import HashDatabase
from miner.models.lora_index import kept_in
from miner.models.lora_set import named_files, take_loras
from miner.models.lora_shelf import Kept
from miner.models.store import store_of
from miner.models.wanted import wanted
from miner.task.errors import ConfigError, MachineFault, MinerError, Retryable
from miner.telemetry.health import Mark
from miner.worker.layout import Placement, layout
from miner.workflows import Card, Library, Workflow, ranking

COMFYUI_TIMEOUT = 10.0  # seconds for one reply
ENGINE_TIMEOUT = 20.0  # seconds for the embedded engine to start

T = TypeVar("T")


class Once(Generic[T]):
    """Calls `ask` for the first caller; the others wait for its answer. `ask` must not raise."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._mutex = threading.Lock()
        self._answer: tuple[T] | None = None

    def __call__(self) -> T:
        with self._mutex:
            if self._answer is None:
                self._answer = (self._ask(),)
        return self._answer[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """The miner that runs on this machine, if any."""

    has_state_lock: bool  # a miner of this configuration runs
    url: str = ""  # of its dashboard; "" if it has none
    health: tuple[Mark, ...] = ()  # its health marks
    state: str = ""  # "working", "paused" or "draining"; "" if it does not answer
    in_hand: int = 0  # tasks
    error: str = ""  # why it could not be asked

    @property
    def is_idle(self) -> bool:
        """Whether it is paused and has no task."""
        return self.state == "paused" and not self.in_hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The ComfyUIs that tasks are rendered on, or why there are none."""

    placements: tuple[Placement, ...] = ()
    error: ConfigError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyStatus:
    """What one ComfyUI answered."""

    placement: Placement
    stats: Stats | None = None
    object_info: dict[str, Any] | None = None
    error: MachineFault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The model files of the enabled workflows, of every variant, or why their folder is unknown."""

    root: Path | None = None
    statuses: tuple[FileStatus, ...] = ()
    broken_loras: Mapping[str, str] = field(default_factory=dict)  # name → what is wrong: "it is empty"
    lora_bases: Mapping[str, str] = field(default_factory=dict)  # every LoRA → its base model; "" where unknown
    on_demand: Sequence[Kept] = ()  # LoRAs that tasks named
    error: MinerError | None = None


def machine_here(
    settings: Settings, workflows: Iterable[Workflow], object_info: dict[str, Any], stats: Stats
) -> Machine:
    """What preflight checks `workflows` against, as in the worker. Reads the heads of their weights."""
    variants = [one for workflow in workflows for one in workflow.variants]
    folders, loras = folders_of(settings), installed_loras(object_info)
    return machine_of(
        object_info,
        stats,
        on_cpu=settings.workflows.on_cpu,
        broken=folders.broken(variants, loras),
        lora_bases=folders.lora_bases(loras),
        on_demand=settings.loras.on_demand,
        capabilities=compute_capabilities(),
    )


def choice_here(settings: Settings, workflow: Workflow, machine: Machine, *, fastest: str = "") -> Choice:
    """The variant that a worker renders `workflow` with on `machine`. `fastest`: the one that a tuning chose."""
    pinned = settings.workflows.variants.get(workflow.name, ())
    return choose_variant(ranking(workflow, machine.card, pinned=pinned, fastest=fastest), machine)


class Facts:
    """Of one configuration. `layout`, `worker` … may be called from any thread, and block until they are known."""

    def __init__(self, loaded: Loaded, library: Library) -> None:
        """Raises ConfigError if an enabled workflow is unknown."""
        self.loaded = loaded
        self.settings = loaded.settings
        self.library = library
        self.enabled: tuple[Workflow, ...] = tuple(library.get(name) for name in self.settings.workflows.enabled)
        self.worker = Once(lambda: find_worker(self.settings))
        self.layout = Once(lambda: find_layout(self.settings))
        self.gpus: Once[Gpus] = Once(lambda: probe_for(self.settings))
        self.comfyuis = Once(self._comfyuis)
        self.model_files = Once(lambda: find_model_files(self.settings, self.enabled))

    def machines(self) -> list[Machine]:
        """Of the ComfyUIs that answer."""
        return [
            machine_here(self.settings, self.enabled, one.object_info, one.stats)
            for one in self.comfyuis()
            if one.object_info is not None and one.stats is not None
        ]

    def cards(self) -> tuple[Card, ...]:
        """Of the ComfyUIs that answer, else of this machine."""
        asked = [one.stats for one in self.comfyuis() if one.stats is not None]
        if asked and not self.embedded:
            return tuple(machine_of({}, stats, capabilities=compute_capabilities()).card for stats in asked)
        home = self.settings.comfyui.home
        return cards_of(self.gpus(), comfyui=version_of(home) if home else "")

    def wanted_files(self) -> tuple[FileStatus, ...]:
        """Of the model files those of the variants for these cards."""
        where = self.settings.workflows
        here = wanted(self.enabled, self.cards(), pinned=where.variants, on_cpu=where.on_cpu)
        files = (*files_of(one.workflow for one in here), *named_files(self.settings))
        paths = {file.relative_path for file in files}
        return tuple(status for status in self.model_files().statuses if status.file.relative_path in paths)

    def _comfyuis(self) -> tuple[ComfyStatus, ...]:
        placements = self.layout().placements
        if self.embedded and not self.worker().has_state_lock:
            return tuple(query_engine(self.settings) for _ in placements)
        return tuple(query_comfyui(placement) for placement in placements)

    @property
    def managed(self) -> bool:
        return self.settings.comfyui.home is not None

    @property
    def embedded(self) -> bool:
        return not (self.settings.comfyui.url or self.managed)


def find_layout(settings: Settings) -> Layout:
    """The placements that a worker would have, in a temporary folder: starting a ComfyUI would create others."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            return Layout(placements=layout(settings.model_copy(update={"state": State(dir=Path(folder))})))
    except ConfigError as error:
        return Layout(error=error)


def query_comfyui(placement: Placement, *, timeout: float = COMFYUI_TIMEOUT) -> ComfyStatus:
    """Query the placement's ComfyUI. Blocks for `timeout` seconds, and for a minute for its list of nodes."""
    with closing(ComfyClient(placement.url, client_id="", timeout=timeout)) as client:
        try:
            stats = client.stats()
            return ComfyStatus(placement=placement, stats=stats, object_info=client.object_info())
        except ComfyFault as fault:
            return ComfyStatus(placement=placement, error=fault)


def query_engine(settings: Settings) -> ComfyStatus:
    """The embedded engine as a worker would start it, started briefly on a free port and in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        launch = embedded_launch(
            port=_free_port(), state=Path(folder), models_dir=settings.models.dir, extra_args=settings.comfyui.args
        )
        placement = Placement(name="0", miner_id=settings.miner.id, url=launch.url, launch=launch)
        engine = ComfyProcess(launch, state=Path(folder), start_timeout=ENGINE_TIMEOUT, stop_grace=2.0)
        try:
            engine.start(threading.Event())
            return query_comfyui(placement)
        except ComfyDown as down:
            return ComfyStatus(placement=placement, error=down)
        finally:
            engine.stop()


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_state_locked(state: Path) -> bool:
    """Whether a miner has locked the state folder. Takes a shared lock for a moment, which no miner waits for."""
    with suppress(OSError):
        handle = os.open(state / "lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False


def find_worker(settings: Settings) -> WorkerStatus:
    """Check the lock of the state folder, and query the dashboard of `[status]`."""
    has_state_lock, status = is_state_locked(settings.state.dir), settings.status
    if not status.enabled or not status.port:
        return WorkerStatus(has_state_lock=has_state_lock, error="[status] is off")
    url = url_of(status.host, status.port)
    client = StatusClient(url=url, token=status.token.get_secret_value() if status.token else "")
    try:
        now, health = client.get("/api/now"), client.get("/api/health")
        return WorkerStatus(
            has_state_lock=has_state_lock,
            url=url,
            health=tuple(Mark(**mark) for mark in health),
            state=str(now["state"]),
            in_hand=sum(len(lane["tasks"]) for lane in now["lanes"]),
        )
    except Retryable as error:
        return WorkerStatus(has_state_lock=has_state_lock, url=url, error=error.message)
    except (KeyError, TypeError, AttributeError):
        return WorkerStatus(
            has_state_lock=has_state_lock, url=url, error=f"{url} is not an xalora-miner of this version"
        )


def find_model_files(settings: Settings, workflows: tuple[Workflow, ...]) -> ModelFiles:
    """Every file that `workflows` need, by its size and its known hash: none is read."""
    try:
        store = store_of(settings)
        files = (*files_of(workflows), *(named_files(settings) if take_loras(workflows) else ()))
        with tempfile.TemporaryDirectory() as empty:
            known = (settings.state.dir / "models.db").is_file()
            hash_db = HashDatabase(settings.state.dir if known else Path(empty))
            with closing(hash_db), disk_errors(store.root):
                statuses = tuple(store.status(file, hash_db) for file in files)
                folders = store.folders
                names = folders.lora_names()
                return ModelFiles(
                    root=store.root,
                    statuses=statuses,
                    broken_loras=folders.broken_loras(),
                    lora_bases=dict.fromkeys(names, "") | folders.lora_bases(names),
                    on_demand=kept_in(store.root),
                )
    except MinerError as error:
        return ModelFiles(error=error)
