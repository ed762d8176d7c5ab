"""The way of one made-up reply through the miner's real code, up to the graph that ComfyUI would get.

Sequencer's bytes → reply → lease → journal → workflow → parameters → inputs → graph → journal. Each case ends in an
answer or in a clean refusal, and whatever else comes out is a failure.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from miner.comfy.preflight import check_graph
from miner.comfy.replies import Stats
from miner.config.bundled import WORKFLOWS
from miner.media.inputs import Fetcher, clean_image
from miner.media.uploads import Uploader, object_key, presigned_key
from miner.sequencer.replies import parse_reply
from miner.task.errors import JobFault, MachineFault, Retryable
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.task.stages import Closed, Graph, Job, Lease, Media, Prepared, PresignedPut
from miner.worker.lane.capabilities import Capabilities
from miner.workflows import Library, Workflow, load_library
from miner.workflows.graph import is_link
from miner.workflows.parameters import place_of
from tests.support.paths import ROOT, STAND_INS
from tests.support.strategies import LORAS
from tests.support.testbed import Testbed
from tests.unit.comfy.conftest import choices_of

RECORDED = ROOT.parent / "shared" / "comfyui"  # of a real ComfyUI; beside the repository, not in it
ME = "0x00000000000000000000000000000000000d37e0"
LONGEST_MSG = 4000  # characters; the longest names eight LoRAs

End = Literal["refused reply", "nothing to do", "running", "refused task", "graph"]


@dataclass(slots=True, kw_only=True)
class Way:
    """The parts of a lane that a task meets before ComfyUI does. `tried` counts the ends."""

    library: Library
    info: dict[str, Any] = field(repr=False)
    capabilities: Capabilities
    journal: Journal
    ledger: Ledger
    fetcher: Fetcher
    uploader: Uploader
    folder: Path
    tried: Counter[End] = field(default_factory=Counter)

    @property
    def ids(self) -> tuple[str, ...]:
        return self.capabilities.ids()

    def take(self, data: bytes) -> End:
        """All the way with one reply. Raises AssertionError, or whatever escapes from the code."""
        end = self._take(data)
        self.tried[end] += 1
        return end

    def _take(self, data: bytes) -> End:
        try:
            reply = parse_reply(data, leased_at=1.0)
        except Retryable as error:
            _assert_sound(error.message)
            return "refused reply"
        if reply.lease is None:
            return "nothing to do" if reply.running is None else "running"
        task_id = reply.lease.task_id
        self.ledger.take(reply.lease)
        self._assert_recorded(task_id)
        try:
            prepared = self._prepare(reply.lease)
        except JobFault as fault:
            _assert_sound(fault.message)
            self.ledger.advance(task_id, Closed(verdict="gone"))
            return "refused task"
        self.ledger.advance(task_id, prepared)
        self._assert_recorded(task_id)
        self.ledger.advance(task_id, Closed(verdict="gone"))
        return "graph"

    def _prepare(self, lease: Lease) -> Prepared:
        if lease.fault:
            raise JobFault(lease.fault)
        workflow = self.capabilities.choose(lease)
        checked = self.capabilities.check(workflow, lease)
        job = Job(workflow=workflow.name, values=checked.values, images=checked.images, deadline=9.0)
        self._deliver(lease, job)
        for name, url in job.images.items():
            clean_image(self.fetcher.fetch(url, name=name), max_pixels=1_000_000, name=name)
        names = dict.fromkeys(job.images, "xalora/0/image.png")
        graph = workflow.fill(job.values, images=names, prefix="xalora/0/out")
        assert_same_shape(graph, workflow)
        assert not check_graph(graph, self.info, bound=_pictures(workflow, names)), "ComfyUI would refuse it"
        json.dumps(graph, allow_nan=False).encode()
        return Prepared(job=job, prompt_id="0" * 36)

    def _deliver(self, lease: Lease, job: Job) -> None:
        """What the target is judged to be; none of the made-up ones leads anywhere."""
        target = lease.target
        if target is None:
            return
        try:
            key = (
                presigned_key(target)
                if isinstance(target, PresignedPut)
                else object_key(prefix="me", workflow=job.workflow, miner_id=ME, task_id=lease.task_id, format="png")
            )
            media = Media(path=self.folder / "result.png", content_type="image/png", size=8)
            self.uploader.upload(media, target, key=key)
        except (JobFault, Retryable, MachineFault) as error:
            _assert_sound(error.message)

    def _assert_recorded(self, task_id: str) -> None:
        """What was written comes back as it was: a start after a crash reads no less."""
        (left,) = self.journal.unfinished(ME)
        task = self.ledger.get(task_id)
        assert task is not None
        assert (left.lease, left.stage) == (task.lease, task.stage)


def assert_same_shape(graph: Graph, workflow: Workflow) -> None:
    """Nothing but constants at declared places may differ from the graph that we wrote."""
    declared = {place_of(bind) for p in workflow.manifest.parameters.values() for bind in p.bind}
    declared.add((workflow.manifest.output.node, "filename_prefix"))
    assert graph.keys() == workflow.graph.keys()
    for node, ours in workflow.graph.items():
        theirs = graph[node]
        assert theirs.keys() == ours.keys()
        assert theirs["class_type"] == ours["class_type"]
        assert theirs["inputs"].keys() == ours["inputs"].keys()
        for name, constant in ours["inputs"].items():
            value = theirs["inputs"][name]
            assert value == constant or (node, name) in declared
            assert is_link(value) == is_link(constant)
            assert type(value) in (str, int, float, bool) or value == constant


def _pictures(workflow: Workflow, names: dict[str, str]) -> set[tuple[str, str]]:
    """Places of uploaded pictures, which ComfyUI lists only once they are there."""
    return {place_of(bind) for name in names for bind in workflow.manifest.parameters[name].bind}


def _assert_sound(message: str) -> None:
    """A sentence of ours for a consumer: one printable line without a path or a traceback of this machine."""
    assert message
    assert message.isprintable(), message
    assert len(message) <= LONGEST_MSG
    assert not re.search(r"Traceback|object at 0x", message), message
    assert str(ROOT) not in message


def object_info(library: Library, folder: Path) -> dict[str, Any]:
    """A real ComfyUI's /object_info as if every model were installed; the engine's where none is recorded."""
    file = RECORDED / "object_info-0.33.0.json"
    if not file.exists():
        with Testbed(folder) as testbed:
            engine: dict[str, Any] = testbed.session.get(f"{testbed.start_engine()}/object_info", timeout=30).json()
            return engine
    info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    models = sorted({model.name for workflow in library.workflows for model in workflow.manifest.models})
    for body in info.values():
        for name, spec in body["input"].get("required", {}).items():
            if name in {"unet_name", "vae_name", "clip_name", "clip_name1", "clip_name2", "model_name"}:
                choices_of(spec).extend(models)
            elif name == "lora_name":
                choices_of(spec).extend(LORAS)
    return info


@contextmanager
def way_in(folder: Path) -> Iterator[Way]:
    """The bundled workflows and the tests' stand-ins, as far as they run on `object_info`."""
    library = load_library([WORKFLOWS, STAND_INS], ids={})
    info = object_info(library, folder)
    capabilities = Capabilities(library, enabled=[one.name for one in library.workflows], refuse_unknown=False)
    capabilities.refresh(info, Stats(version="0.33.0", device="cpu", on_gpu=False, vram_total=0, vram_free=0))
    (folder / "result.png").write_bytes(bytes(8))
    journal = Journal(folder / "state")
    fetcher = Fetcher(allow=frozenset(), max_bytes=1 << 16, timeout=5.0, backoff=0.001, resolve=_nobody)
    uploader = Uploader(
        allow=frozenset(), bucket="b", endpoint="https://127.0.0.1", region="auto", timeout=5.0, resolve=_nobody
    )
    try:
        yield Way(
            library=library,
            info=info,
            capabilities=capabilities,
            journal=journal,
            ledger=Ledger(miner_id=ME, journal=journal, folder=folder),
            fetcher=fetcher,
            uploader=uploader,
            folder=folder,
        )
    finally:
        uploader.close()
        fetcher.close()
        journal.close()


def _nobody(_host: str, _port: int) -> Sequence[str]:
    raise OSError("no such name")
