"""The crew: everything that works under one configuration, built once and let go as a whole.

A lane for each ComfyUI, and what the lanes share: the sequencer, the outbox, the fetcher and the uploader. It decides
nothing; the worker does.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from miner.comfy.client import ComfyClient
from miner.comfy.events import EventStream
from miner.comfy.host import ComfyHost
from miner.comfy.launch import Launch, embedded_launch, managed_launch
from miner.comfy.process import ComfyProcess
from miner.config import Settings
from miner.inputs import Fetcher
from miner.journal import Journal
from miner.lane import Lane
from miner.lane.desk import Desk
from miner.lane.offer import Offer
from miner.outbox import Outbox
from miner.sequencer import Sequencer
from miner.uploads import Uploader
from miner.workflows import Library

log = structlog.get_logger()


class Crew:
    """Start it, drain or abort it, join it: once each, from one thread."""

    def __init__(self, settings: Settings, library: Library, *, journal: Journal) -> None:
        """Raises ConfigError where the settings cannot work together."""
        self._settings = settings
        self._library = library
        self._journal = journal
        key = settings.sequencer.api_key
        self._sequencer = Sequencer(
            settings.sequencer.url,
            api_key=key.get_secret_value() if key else "",
            timeout=settings.sequencer.timeout,
        )
        self._outbox = Outbox(self._sequencer, journal)
        self._fetcher = Fetcher(
            allow=settings.network.allow,
            max_bytes=settings.network.input_max_mb << 20,
            timeout=settings.network.input_timeout,
        )
        self._uploader = Uploader(
            allow=settings.network.allow,
            bucket=settings.upload.bucket,
            endpoint=settings.upload.endpoint,
            region=settings.upload.region,
            timeout=settings.upload.timeout,
        )
        self.lanes = [self._lane("0")]

    # ---- its life ---------------------------------------------------------------------------------

    def start(self) -> None:
        self._outbox.start()
        for lane in self.lanes:
            lane.start()

    def drain(self) -> None:
        """Take nothing new; what is in hand is finished."""
        for lane in self.lanes:
            lane.drain()
        self._sequencer.abort_waits()

    def abort(self) -> None:
        """Interrupt what is in hand, too."""
        for lane in self.lanes:
            lane.abort()

    def join(self, *, next_settings: Settings | None = None) -> None:
        """Wait for the end of every loop, and let go of everything.

        A ComfyUI of ours goes on where `next_settings` want the very same one.
        """
        here = self._settings
        same = next_settings is not None and (here.comfyui, here.models) == (
            next_settings.comfyui,
            next_settings.models,
        )
        for lane in self.lanes:
            lane.join(leave_running=same)
        self._outbox.stop()
        self._uploader.close()
        self._fetcher.close()
        self._sequencer.close()

    # ---- how it does ------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return any(lane.alive for lane in self.lanes)

    @property
    def failed(self) -> bool:
        """Whether a loop ended by an error, which is a bug."""
        return any(lane.failed for lane in self.lanes)

    @property
    def in_hand(self) -> int:
        """Tasks that are held, answered ones without an acknowledgement among them."""
        return sum(lane.desk.holds for lane in self.lanes)

    @property
    def urls(self) -> list[str]:
        return [lane.host.client.url for lane in self.lanes]

    def says(self) -> str:
        """One sentence about all of it."""
        return "; ".join(lane.sentence for lane in self.lanes)

    # ---- building a lane --------------------------------------------------------------------------

    def _lane(self, name: str) -> Lane:
        settings = self._settings
        offer = Offer(
            self._library,
            enabled=settings.workflows.enabled,
            refuse_unknown=settings.workflows.unknown_parameters == "refuse",
        )
        launch = self._launch()
        url = launch.url if launch else settings.comfyui.url
        client_id = f"xalora-{settings.miner.id}-{name}"
        host = ComfyHost(
            ComfyClient(url, client_id=client_id),
            EventStream(url, client_id=client_id),
            process=self._process(launch) if launch else None,
            output_dir=launch.output_dir if launch else settings.comfyui.output_dir,
            input_dir=launch.input_dir if launch else settings.comfyui.input_dir,
            on_ready=offer.refresh,
        )
        desk = Desk(
            miner_id=settings.miner.id,
            sequencer=self._sequencer,
            journal=self._journal,
            outbox=self._outbox,
            prefetch=settings.miner.prefetch,
        )
        return Lane(
            name,
            settings=settings,
            desk=desk,
            host=host,
            offer=offer,
            journal=self._journal,
            outbox=self._outbox,
            fetcher=self._fetcher,
            uploader=self._uploader,
            folder=settings.state.dir / f"lane-{name}",
        )

    def _launch(self) -> Launch | None:
        """How to start a ComfyUI of ours; None where the operator named one that runs."""
        comfyui, models, state = self._settings.comfyui, self._settings.models, self._settings.state.dir
        if comfyui.url:
            return None
        if comfyui.home is None:
            log.warning(
                "embedded_engine",
                reason="neither comfyui.url nor comfyui.home is set",
                next="using the built-in engine on the CPU: it runs image nodes, and models only where torch is",
            )
            return embedded_launch(port=comfyui.port, state=state, models_dir=models.dir, extra_args=comfyui.args)
        return managed_launch(
            home=comfyui.home,
            python=comfyui.python or _python_of(comfyui.home),
            port=comfyui.port,
            gpu=comfyui.gpus[0] if comfyui.gpus else None,
            state=state,
            models_dir=models.dir,
            extra_args=comfyui.args,
        )

    def _process(self, launch: Launch) -> ComfyProcess:
        return ComfyProcess(launch, state=self._settings.state.dir, start_timeout=self._settings.comfyui.start_timeout)


def _python_of(home: Path) -> Path:
    """The Python of a ComfyUI's own environment, else the one on the path."""
    own = (home / name / "bin" / "python" for name in ("venv", ".venv"))
    return next((python for python in own if python.exists()), Path("python3"))
