"""All lanes of one configuration, one per ComfyUI, with what they share: sequencer, outbox, fetcher, uploader.

The supervisor decides when to start, drain and stop them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import overload

from miner.comfy.client import ComfyClient
from miner.comfy.events import EventStream
from miner.comfy.host import ComfyHost
from miner.comfy.launch import Launch
from miner.comfy.process import ComfyProcess
from miner.config import Settings
from miner.machine import benchmarks
from miner.machine.cards import compute_capabilities
from miner.media import decoders
from miner.media.inputs import Fetcher
from miner.media.uploads import Uploader
from miner.models.folders import folders_of
from miner.models.lora_register import LoraRegister
from miner.models.lora_set import elsewhere_of, on_demand_of
from miner.net.addresses import parse_allow
from miner.net.egress import Egress
from miner.sequencer import Sequencer
from miner.sequencer.outbox import Outbox
from miner.task.journal import Journal
from miner.telemetry import clock
from miner.telemetry.audience import Audience
from miner.telemetry.sizes import MEGABYTE
from miner.worker.lane import Lane
from miner.worker.lane.capabilities import Capabilities
from miner.worker.lane.loras import references
from miner.worker.lane.shutdown import Shutdown
from miner.worker.layout import Placement, layout
from miner.workflows import Library

STOP_GRACE = 25.0  # seconds; a ComfyUI that ignores SIGTERM takes 10, and one that SIGKILL does not end 20


class Lanes(Sequence[Lane]):
    """Call `start`, `drain` or `abort`, and `join` once each, from one thread."""

    def __init__(self, settings: Settings, library: Library, *, journal: Journal, audience: Audience) -> None:
        """Raises ConfigError if the settings contradict each other. Starts nothing, and disturbs no other lanes."""
        self.settings = settings
        self.library = library
        self._journal = journal
        self._audience = audience
        key = settings.sequencer.api_key
        egress = Egress(settings.sequencer.url)
        self._sequencer = Sequencer(
            settings.sequencer.url,
            api_key=key.get_secret_value() if key else "",
            timeout=settings.sequencer.timeout,
            max_input=settings.network.input_max_mb * MEGABYTE,
            egress=egress,
        )
        self.outbox = Outbox(self._sequencer)
        allow = parse_allow(settings.network.allow)
        self.shutdown = Shutdown()
        self._fetcher = Fetcher(
            allow=allow,
            max_bytes=settings.network.input_max_mb * MEGABYTE,
            timeout=settings.network.input_timeout,
            egress=egress,
        )
        self._uploader = Uploader(
            allow=allow,
            bucket=settings.upload.bucket,
            endpoint=settings.upload.endpoint,
            region=settings.upload.region,
            timeout=settings.upload.timeout,
            gateway=settings.upload.gateway,
            egress=egress,
        )
        self._model_folders = folders_of(settings)
        self._on_demand = on_demand_of(settings, needed=self._loras_needed, changed=self._wake, egress=egress)
        self._register = LoraRegister(settings.state.dir)
        self._lanes: list[Lane] = []
        self._lanes += [self._lane(placement) for placement in layout(settings)]

    @overload
    def __getitem__(self, index: int) -> Lane: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Lane]: ...
    def __getitem__(self, index: int | slice) -> Lane | Sequence[Lane]:
        return self._lanes[index]

    def __len__(self) -> int:
        return len(self._lanes)

    # ---- lifecycle --------------------------------------------------------------------------------

    def rehearse(self, *, beside: Lanes) -> None:
        """Raise MachineFault if a ComfyUI of these could not be started after the lanes `beside` have ended."""
        given_up = {lane.host.client.url for lane in beside if lane.host.process is not None}
        for lane in self._lanes:
            if lane.host.process is not None:
                lane.host.process.rehearse(port_is_ours=lane.host.client.url in given_up)

    def start(self) -> None:
        self.outbox.start()
        decoders.shared.warm()
        for lane in self._lanes:
            lane.start()

    def drain(self) -> None:
        """Lease nothing new; finish the tasks in hand."""
        self.shutdown.drain()
        self._wake()
        self._sequencer.abort_waits()

    def abort(self) -> None:
        """Cancel the tasks in hand, too."""
        self.shutdown.abort()
        self._wake()

    def join(self, *, next_settings: Settings | None = None) -> None:
        """Wait for all loops and release everything. Managed ComfyUIs run on if `next_settings` keep them."""
        here = self.settings
        same = next_settings is not None and (here.comfyui, here.models) == (
            next_settings.comfyui,
            next_settings.models,
        )
        for lane in self._lanes:
            lane.join(leave_running=same)
        if self._on_demand is not None:
            self._on_demand.close()
        self.outbox.stop()
        self._uploader.close()
        self._fetcher.close()
        self._sequencer.close()

    def _wake(self) -> None:
        for lane in self._lanes:
            lane.ledger.wake()

    def _loras_needed(self) -> set[str]:
        """The keys of the references that tasks in hand name."""
        jobs = [task.job for lane in self._lanes for task in lane.ledger.view() if not task.answered]
        return {reference.key for job in jobs if job is not None for _, reference in references(self.library, job)}

    def set_leasing(self, wanted: bool) -> None:
        """Lease new tasks, or not; tasks in hand continue."""
        for lane in self._lanes:
            lane.gate.set_leasing(wanted)
        if not wanted:
            self._sequencer.abort_waits(for_good=False)  # a held request could still lease a task

    def abandon(self, *, stop_comfyui: bool = False) -> None:
        """Stop without joining the loops: one crashed, or hangs. Ends the heartbeats, so that the sequencer notices.

        The journal has the tasks in hand. Blocks for STOP_GRACE seconds at most.
        """
        for lane in self._lanes:
            lane.heartbeat.stop.set()
        ends = [lambda: self.outbox.stop(grace=1.0), decoders.shared.close]
        if stop_comfyui:
            ends += [lane.host.close for lane in self._lanes]
        threads = [threading.Thread(target=end, name="abandon", daemon=True) for end in ends]
        until = clock.now() + STOP_GRACE
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(until - clock.now(), 0.0))

    # ---- state ------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return any(lane.alive for lane in self._lanes)

    @property
    def failed(self) -> bool:
        """Whether a loop crashed (a bug)."""
        return any(lane.failed for lane in self._lanes)

    @property
    def hanging(self) -> list[str]:
        """The names of the loops that have not ended."""
        return [name for lane in self._lanes for name in lane.running]

    @property
    def without_comfyui_for(self) -> float:
        """Seconds since any lane could render; 0.0 with an external ComfyUI, or with one that is ready."""
        since = [lane.without_comfyui_since for lane in self._lanes]
        return clock.now() - max(since) if all(since) else 0.0

    @property
    def in_hand(self) -> int:
        """Tasks in hand, including answers not acknowledged yet."""
        return sum(len(lane.ledger.view()) for lane in self._lanes)

    @property
    def urls(self) -> list[str]:
        return [lane.host.client.url for lane in self._lanes]

    def says(self) -> str:
        """One sentence about all lanes."""
        if len(self._lanes) == 1:
            return self._lanes[0].sentence
        return "; ".join(f"lane {lane.name}: {lane.sentence}" for lane in self._lanes)

    # ---- building a lane --------------------------------------------------------------------------

    def _lane(self, placement: Placement) -> Lane:
        settings = self.settings
        capabilities = Capabilities(
            self.library,
            enabled=settings.workflows.enabled,
            refuse_unknown=settings.workflows.unknown_parameters == "refuse",
            on_cpu=settings.workflows.on_cpu,
            model_folders=self._model_folders,
            pinned=settings.workflows.variants,
            fastest=placement.fastest,
            compute_capabilities=compute_capabilities,
            elsewhere=elsewhere_of(settings, self._on_demand),
            measured=benchmarks.read(settings.state.dir),
            usual=self._journal.usual_seconds,
        )
        client_id = f"xalora-{placement.miner_id}"
        host = ComfyHost(
            ComfyClient(placement.url, client_id=client_id),
            EventStream(placement.url, client_id=client_id),
            process=self._process(placement.launch) if placement.launch else None,
            output_dir=placement.output_dir,
            input_dir=placement.input_dir,
            on_ready=lambda object_info, stats: lane.comfyui_ready(object_info, stats),
        )
        lane = Lane(
            placement.name,
            miner_id=placement.miner_id,
            settings=settings,
            shutdown=self.shutdown,
            sequencer=self._sequencer,
            host=host,
            capabilities=capabilities,
            journal=self._journal,
            outbox=self.outbox,
            fetcher=self._fetcher,
            uploader=self._uploader,
            audience=self._audience,
            folder=settings.state.dir / f"lane-{placement.name}",
            on_demand=self._on_demand,
            used=self._register.used,
        )
        return lane

    def _process(self, launch: Launch) -> ComfyProcess:
        return ComfyProcess(launch, state=self.settings.state.dir, start_timeout=self.settings.comfyui.start_timeout)
