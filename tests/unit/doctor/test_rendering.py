"""The self-test and the bench, on the embedded engine."""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import replace

import pytest
from PIL import Image

from miner.comfy.client import ComfyClient
from miner.doctor.bench import measure
from miner.doctor.comfy_session import Busy, open_session
from miner.doctor.decode import Decoded, decode
from miner.doctor.facts import WorkerStatus
from miner.doctor.peak import PeakMemory
from miner.doctor.selftest import PICTURE, VIDEO, animation, mark, random_picture, runnable, selftest
from miner.doctor.trial_render import TrialRender, render, require
from miner.machine import benchmarks
from miner.machine.gpu import Nvml
from miner.task.errors import ConfigError, MachineFault
from miner.task.journal import Journal
from miner.worker.layout import layout
from tests.support.testbed import free_port, until

IDLE = WorkerStatus(has_state_lock=False)
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


@pytest.fixture
def session(facts_of, engine):
    facts = facts_of(comfyui={"url": engine})
    with open_session(facts.layout().placements[0], facts.settings, IDLE) as session:
        yield session


# ---- the self-test ----------------------------------------------------------------------------------------------


def test_every_runnable_workflow_renders_and_decodes(session, library):
    chosen = [library.get(name) for name in ("upscaler-lanczos", "mochi-fp8", "plain-video", "plain-picture")]
    renders = {one.name: one for one in selftest(session, chosen)}
    assert [one.name for one in runnable(session, chosen)] == ["upscaler-lanczos", "plain-video", "plain-picture"]
    assert list(renders) == [PICTURE, VIDEO, "upscaler-lanczos", "plain-video", "plain-picture"]
    assert all(one.ok and one.seconds is not None for one in renders.values())
    assert (renders[VIDEO].frames, renders[VIDEO].width, renders[VIDEO].height) == (3, 64, 48)
    assert (renders["upscaler-lanczos"].width, renders["upscaler-lanczos"].height) == (256, 192)
    assert {mark(one).level for one in renders.values()} == {"good"}


def broken(class_type, **inputs):
    """A trial render with a node that misbehaves."""
    prompt_id = str(uuid.uuid4())
    graph = {
        "picture": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "work": {"class_type": class_type, "inputs": {"image": ["picture", 0], **inputs}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["work", 0], "filename_prefix": "x"}},
    }
    return TrialRender(name=PICTURE, graph=graph, prompt_id=prompt_id, node="save", format="png", limit=30.0)


def test_a_node_that_fails_is_bad_with_its_message(session):
    one = render(session, broken("DevnetFail", kind="error"))
    assert not one.ok
    assert "DevnetFail" in one.says
    assert mark(one).level == "bad"
    assert mark(replace(one, name="mochi-fp8")).level == "warning"


def test_a_graph_that_is_refused_is_a_failure(session):
    one = render(session, broken("NoSuchNode"))
    assert "rejected the graph" in one.says


def test_a_render_that_takes_too_long_is_cancelled(session):
    slow = {"seconds": 60.0, "steps": 600, "previews_per_second": 0.0, "until": ""}
    one = render(session, replace(broken("DevnetWait", **slow), limit=0.2))
    assert "not done within" in one.says
    queue = session.host.client.queue()
    assert not queue.pending


def test_unexpected_pixels_are_a_fault(tmp_path):
    path = tmp_path / "frames.webp"
    path.write_bytes(animation(COLORS))
    decoded = decode(path)
    assert (decoded.frames, list(decoded.middles)) == (3, COLORS)
    trial = TrialRender(name=VIDEO, graph={}, prompt_id="x", node="save", format="webp", limit=1.0, size=(64, 48))
    require(trial, decoded)
    require(replace(trial, middles=COLORS), decoded)
    with pytest.raises(MachineFault, match="not the expected ones"):
        require(replace(trial, middles=COLORS[::-1]), decoded)
    with pytest.raises(MachineFault, match="64x48 pixels, expected 32x32"):
        require(replace(trial, size=(32, 32)), decoded)
    require(replace(trial, size=(1, 1)), Decoded(decoder=False))


@pytest.mark.parametrize("name", ["cut.png", "none.webp", "cut.mp4"])
def test_a_broken_file_is_a_fault(tmp_path, name):
    pytest.importorskip("av")
    (tmp_path / name).write_bytes(random_picture((64, 64))[:200])
    with pytest.raises(MachineFault, match="cannot be decoded"):
        decode(tmp_path / name)


def test_an_mp4_is_decoded_frame_by_frame(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "x.mp4"), "w") as out:
        stream = out.add_stream("h264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for color in COLORS:
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), color))
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode())
    decoded = decode(tmp_path / "x.mp4")
    assert (decoded.width, decoded.height, decoded.frames) == (64, 48, 3)


def test_the_peak_is_known_with_nvml_only():
    nvml = Nvml()
    there = bool(nvml.health())
    nvml.close()
    with PeakMemory() as peak:
        pass
    assert (peak.memory is not None) == there


# ---- a ComfyUI that is at work --------------------------------------------------------------------------------------


def test_a_worker_that_is_at_work_is_not_disturbed(facts_of, engine):
    facts = facts_of(comfyui={"url": engine})
    (placement,) = facts.layout().placements
    for worker in (
        WorkerStatus(has_state_lock=True, state="working"),
        WorkerStatus(has_state_lock=True),
        WorkerStatus(has_state_lock=True, state="paused", in_hand=1),
    ):
        with pytest.raises(Busy) as caught, open_session(placement, facts.settings, worker):
            pass
        assert "xalora-miner pause" in caught.value.hint
    with open_session(placement, facts.settings, WorkerStatus(has_state_lock=True, state="paused")) as session:
        assert session.stats.version


def test_a_comfyui_that_is_at_work_is_not_disturbed(facts_of, engine):
    facts = facts_of(comfyui={"url": engine})
    slow = broken("DevnetWait", seconds=60.0, steps=600, previews_per_second=0.0, until="")
    with closing(ComfyClient(engine, client_id="somebody")) as somebody:
        somebody.submit(slow.graph, slow.prompt_id)
        try:
            with (
                pytest.raises(Busy, match="1 prompts"),
                open_session(facts.layout().placements[0], facts.settings, IDLE),
            ):
                pass
        finally:
            somebody.cancel(slow.prompt_id)
            until(lambda: not somebody.queue().running, why="the end of the cancelled prompt")


def test_a_managed_comfyui_is_started_and_stopped_again(facts_of, tmp_path):
    facts = facts_of(comfyui={"port": free_port()})
    (placement,) = layout(facts.settings)
    with open_session(placement, facts.settings, IDLE) as session:
        assert session.host.process.alive()
        with pytest.raises(ConfigError, match="another xalora-miner"):
            Journal(tmp_path / "state")
        url = session.host.client.url
    with closing(ComfyClient(url, client_id="")) as client, pytest.raises(MachineFault):
        client.stats()


def test_a_state_folder_that_a_miner_has_just_locked_is_left_to_it(facts_of, tmp_path):
    facts = facts_of(comfyui={"port": free_port()})
    (placement,) = layout(facts.settings)
    with (
        closing(Journal(tmp_path / "state")),
        pytest.raises(ConfigError, match="another xalora-miner is using it"),
        open_session(placement, facts.settings, IDLE),
    ):
        pass


# ---- the bench ----------------------------------------------------------------------------------------------------


def test_a_workflow_is_measured_cold_and_warm_and_saved(session, library, tmp_path):
    row = measure(session, library.get("plain-picture"), runs=2, limit=None)
    assert row.measured.runs == 2
    assert row.measured.tasks_an_hour == pytest.approx(3600 / row.measured.warm)
    benchmarks.write(tmp_path / "state", [row.measured])
    known = benchmarks.read(tmp_path / "state")
    assert known == {"plain-picture": row.measured}
    assert benchmarks.warm_seconds(known, device=session.stats.device) == {"plain-picture": row.measured.warm}
    assert benchmarks.warm_seconds(known, device="another card") == {}


def test_a_workflow_that_fails_has_no_measurement(session, library):
    row = measure(session, library.get("mochi-fp8"), runs=1, limit=None)
    assert row.measured is None
    assert row.failure.cure


def test_no_two_renders_of_a_bench_are_alike(library):
    assert random_picture((8, 8)) != random_picture((8, 8))
    asked = {"loras": ("a.safetensors",), "image": "", "smallest": False}
    prompts = [library.get("flux-lora").example(**asked, prompt=text)["prompt"] for text in ("one", "two")]
    assert prompts == ["one", "two"]
