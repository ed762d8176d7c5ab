"""What only the embedded engine promises: its process, its flags, its test nodes. A real ComfyUI is not asked."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from miner.comfy.client import ComfyClient
from miner.comfy.replies import Queue
from tests.support.forks import Fork

from .conftest import engine
from .graphs import empty, node, prefix, simple
from .wire import Comfy, Event, Preview, until

ENGINE = (sys.executable, "-m", "miner.engine")


@contextlib.contextmanager
def started(folder: Path, *flags: str, **options: str) -> Iterator[tuple[Fork | subprocess.Popen[str], Comfy]]:
    with engine(folder, *flags, **options) as (process, url), requests.Session() as session:
        yield process, Comfy(url, session, folder)


def refusal(*flags: str) -> tuple[int, str]:
    """The exit code and the last line of stderr of an engine that does not start."""
    done = subprocess.run([*ENGINE, *flags], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()[-1]


def test_it_starts_in_comfyuis_place(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("output", "input", "temp", "user", "models")}
    for name in ("user", "models"):
        folders[name].mkdir()
    extra = tmp_path / "extra.yaml"
    extra.write_text(
        f"shared:\n    base_path: {tmp_path}\n    upscale_models: more\n    loras: |\n        l1\n        l2\n"
    )
    for name in ("more/a.safetensors", "l2/deep/b.safetensors", "l2/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    flags = [part for name, path in folders.items() for part in (f"--{name}-directory", str(path))]
    flags += ["--listen", "127.0.0.1", "--cpu", "--disable-all-custom-nodes", "--whitelist-custom-nodes", "a", "b"]
    flags += ["--disable-api-nodes", "--disable-auto-launch", "--dont-print-server", "--cuda-device", "0", "--lowvram"]
    flags += ["--database-url", "sqlite:///:memory:", "--fast", "--verbose", "INFO", "--reserve-vram", "1.5"]
    flags += ["--extra-model-paths-config", str(extra), "--disable-metadata", "--cache-none"]
    with started(tmp_path, *flags, module="miner.engine") as (_, comfy):
        graph = simple()
        (file,) = comfy.run(graph).files
        assert (folders["output"] / file["subfolder"] / file["filename"]).is_file()
        assert comfy.image(file).text == {}  # type: ignore[attr-defined]
        assert "execution_cached []" in comfy.run(graph).outline
        assert comfy.get("/models/upscale_models").json() == ["a.safetensors"]
        assert comfy.get("/models/loras").json() == ["deep/b.safetensors"]
        assert not any(name.startswith("Devnet") for name in comfy.get("/object_info").json())
        assert comfy.prompt(waiting(seconds=0)).json()["error"]["type"] == "missing_node_type"


def test_it_says_where_it_is_and_nothing_else_and_ends_when_told(tmp_path: Path) -> None:
    with engine(tmp_path) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert requests.get(f"{url}/prompt", timeout=10).status_code == 200
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.wait(timeout=30) == 0


def test_it_ends_though_a_client_is_connected_and_a_node_runs(tmp_path: Path) -> None:
    with started(tmp_path) as (process, comfy), comfy.stream() as stream:
        comfy.submit(waiting(seconds=600), client_id=stream.client)
        stream.until_outline("executing 2")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    command = f'"$0" -m miner.engine --port 0 --base-directory "{tmp_path}" --parent-pid $$ & wait'
    parent = subprocess.Popen(["sh", "-c", command, sys.executable], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline().decode().rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)):
            pass
        parent.kill()
        until(lambda: not listens(port))


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def test_it_removes_what_it_made_for_itself(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [*ENGINE, "--port", "0", "--parent-pid", str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert list(tmp_path.glob("*/output"))
        process.terminate()
        assert process.wait(timeout=30) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_flag_is_refused() -> None:
    assert refusal("--nosuch-flag") == (2, "miner.engine: error: unrecognized arguments: --nosuch-flag")


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, line = refusal("--port", str(other.getsockname()[1]), "--base-directory", str(tmp_path))
    assert code == 1
    assert "Address already in use" in line


def test_a_file_of_model_paths_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("shared:\n    - a list\n")
    code, line = refusal("--base-directory", str(tmp_path), "--extra-model-paths-config", str(broken))
    assert code == 1
    assert f"{broken}:2" in line


def test_another_name_for_this_machine_is_refused(only_engine: Comfy) -> None:
    assert only_engine.get("/prompt", headers={"Host": "evil.example"}).status_code == 403
    assert only_engine.get("/prompt", headers={"Host": "127.0.0.1.evil.example"}).status_code == 403
    assert only_engine.get("/prompt", headers={"Host": "localhost:1"}).status_code == 200
    assert only_engine.get("/prompt", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_it_says_what_it_really_is(only_engine: Comfy) -> None:
    assert only_engine.get("/system_stats").json()["system"]["engine"].startswith("xalora-miner ")
    assert "embedded engine" in only_engine.get("/").text


def waiting(**inputs: object) -> dict[str, dict[str, object]]:
    """An image, a DevnetWait, and a node that saves."""
    wait = node("DevnetWait", image=["1", 0], **inputs)
    return {"1": empty(), "2": wait, "3": node("SaveImage", images=["2", 0], filename_prefix=prefix())}


def failing(kind: str, **inputs: object) -> dict[str, dict[str, object]]:
    fail = node("DevnetFail", image=["1", 0], kind=kind, **inputs)
    return {"1": empty(), "2": fail, "3": node("SaveImage", images=["2", 0], filename_prefix=prefix())}


def test_a_wait_reports_its_steps(only_engine: Comfy) -> None:
    ran = only_engine.run(waiting(seconds=0, steps=50))
    steps = [event.data["value"] for event in ran.events if isinstance(event, Event) and event.type == "progress"]
    assert (steps[0], steps[-1]) == (1, 50)
    if not only_engine.newer:  # the newer version leaves out what comes too quickly
        assert steps == list(range(1, 51))


def test_previews_come_in_the_plain_form(only_engine: Comfy) -> None:
    ran = only_engine.run(waiting(seconds=0.05, previews_per_second=40))
    assert ran.outline.count("preview 1") == 2
    at = ran.outline.index("preview 1")
    assert ran.outline[at - 2 : at] == ["progress_state 1:finished 2:running", "progress"]
    preview = ran.events[at]
    assert isinstance(preview, Preview)
    assert int.from_bytes(preview.body[:4]) == 1
    with preview.image() as image:
        assert (image.format, image.size) == ("JPEG", (512, 512))


def test_previews_come_with_metadata_to_who_understands_it(only_engine: Comfy) -> None:
    flags = {"supports_preview_metadata": True}
    ran = only_engine.run(waiting(seconds=0.05, previews_per_second=20), flags=flags)
    assert "preview 1" not in ran.outline
    at = ran.outline.index("preview 4")
    assert (ran.outline[at - 1], ran.outline[at + 1]) == ("progress_state 1:finished 2:running", "progress")
    preview = ran.events[at]
    assert isinstance(preview, Preview)
    assert preview.metadata() == {
        "node_id": "2",
        "prompt_id": ran.prompt_id,
        "display_node_id": "2",
        "parent_node_id": None,
        "real_node_id": "2",
        "image_type": "image/jpeg",
    }
    with preview.image() as image:
        assert image.format == "JPEG"


def test_there_are_no_previews_unless_asked_for(tmp_path: Path) -> None:
    with started(tmp_path) as (_, comfy):
        ran = comfy.run(waiting(seconds=0.05, previews_per_second=20))
    assert "progress" in ran.outline
    assert not any(isinstance(event, Preview) for event in ran.events)


@pytest.mark.parametrize(
    ("method", "drawn"),
    [("none", False), ("auto", True), ("default", True), (None, True), ("rubbish", True), ([], True)],
)
def test_a_prompt_decides_about_its_previews_where_the_version_lets_it(
    only_engine: Comfy, method: object, drawn: bool
) -> None:
    graph = waiting(seconds=0.05, previews_per_second=20)
    ran = only_engine.run(graph, extra_data={"preview_method": method})
    assert ("preview 1" in ran.outline) is (drawn or not only_engine.newer)


def test_a_waiting_prompt_is_queued_again_with_previews_in_its_place(only_engine: Comfy) -> None:
    gate = f"{prefix()}.gate".replace("/", "-")
    graphs = [waiting(seconds=600, until=gate), *(waiting(seconds=0.05, previews_per_second=20) for _ in range(2))]
    with (
        only_engine.stream() as stream,
        contextlib.closing(ComfyClient(only_engine.url, client_id=stream.client)) as us,
    ):
        runs, first, last = (str(uuid.uuid4()) for _ in range(3))
        for graph, prompt_id in zip(graphs, (runs, first, last), strict=True):
            us.submit(graph, prompt_id)
        stream.until_outline("executing 2")
        assert [us.resubmit(prompt_id) for prompt_id in (runs, first, str(uuid.uuid4()))] == [True, True, False]
        assert us.queue() == Queue(running=(runs,), pending=(first, last))
        only_engine.upload(gate, b"")
        stream.until_done(runs)
        seen = [sum(isinstance(event, Preview) for event in stream.until_done(one)) for one in (first, last)]
    assert seen == [1, 1 if only_engine.newer else 2]  # of both together
    assert us.resubmit(first)  # it has ended
    assert us.queue() == Queue(running=(), pending=())


def test_an_interrupt_ends_a_wait_at_once(only_engine: Comfy) -> None:
    with only_engine.stream() as stream:
        prompt_id = only_engine.submit(waiting(seconds=600), client_id=stream.client)
        stream.until_outline("executing 2")
        only_engine.post("/interrupt", json={"prompt_id": prompt_id})
        assert [event.outline for event in stream.until_done(prompt_id)][-2] == "execution_interrupted"


def test_a_wait_that_is_not_interruptible_lasts_until_its_gate_opens(only_engine: Comfy) -> None:
    gate = f"{prefix()}.gate".replace("/", "-")
    with only_engine.stream() as stream:
        graph = waiting(seconds=600, interruptible=False, until=gate)
        prompt_id = only_engine.submit(graph, client_id=stream.client)
        stream.until_outline("executing 2")
        only_engine.post("/interrupt", json={"prompt_id": prompt_id})
        assert only_engine.history(prompt_id) is None
        only_engine.upload(gate, b"")
        stream.until_done(prompt_id)
    entry = only_engine.wait(prompt_id)
    assert dict(entry["status"]["messages"])["execution_interrupted"]["node_id"] == "3"


def test_a_link_to_nowhere_that_no_node_asks_for_is_ignored(only_engine: Comfy) -> None:
    graph = {**simple(nonsense=["77", 0]), "stray": {"class_type": "EmptyImage", "inputs": ["no", "mapping"]}}
    assert only_engine.run(graph).entry["status"]["completed"] is True


def test_what_was_not_validated_fails_when_it_runs(only_engine: Comfy) -> None:
    graph = {**simple(nonsense=["stray", 0]), "stray": {"class_type": "ImageInvert"}}
    error = only_engine.run(graph).event("execution_error")
    assert (error["node_id"], error["exception_type"], error["current_inputs"]) == ("stray", "KeyError", {})


def test_a_busy_node_uses_a_processor(only_engine: Comfy) -> None:
    busy = node("DevnetBusy", image=["1", 0], milliseconds=30)
    graph = {"1": empty(), "2": busy, "3": node("PreviewImage", images=["2", 0])}
    ran = only_engine.run(graph)
    assert ran.message("execution_success")["timestamp"] - ran.message("execution_start")["timestamp"] >= 30


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("error", "RuntimeError", "DevnetFail was asked to fail"),
        ("out-of-memory", "torch.OutOfMemoryError", "Allocation on device"),
    ],
)
def test_a_failure_looks_like_the_real_one(only_engine: Comfy, kind: str, name: str, text: str) -> None:
    error = only_engine.run(failing(kind)).event("execution_error")
    assert (error["exception_type"], error["node_type"]) == (name, "DevnetFail")
    assert error["exception_message"].startswith(text)
    assert only_engine.run(simple()).entry["status"]["completed"] is True


def test_a_failure_can_be_counted(only_engine: Comfy) -> None:
    label = prefix()
    ends = [only_engine.run(failing("error", times=2, label=label)).outline[-2] for _ in range(3)]
    assert ends == ["execution_error", "execution_error", "execution_success"]


def test_a_cuda_fault_lasts_until_the_restart(tmp_path: Path) -> None:
    with started(tmp_path) as (_, comfy):
        error = comfy.run(failing("cuda", times=1, label="once")).event("execution_error")
        assert error["exception_message"].startswith("CUDA error: an illegal memory access was encountered")
        assert "execution_error" in comfy.run(waiting(seconds=0)).outline
    with started(tmp_path) as (_, comfy):
        assert comfy.run(failing("cuda", times=1, label="once")).entry["status"]["completed"] is True


def test_an_exit_in_a_node_leaves_http_alive_and_the_queue_standing(tmp_path: Path) -> None:
    with started(tmp_path) as (process, comfy):
        with comfy.stream() as stream:
            dead = comfy.submit(failing("exit"), client_id=stream.client)
            stream.until_outline("executing 2")
            behind = comfy.submit(simple())
            assert stream.is_silent()
        queue = comfy.get("/queue").json()
        assert [item[1] for item in queue["queue_running"]] == [dead]
        assert [item[1] for item in queue["queue_pending"]] == [behind]
        assert comfy.get("/system_stats").status_code == 200
        process.terminate()
        assert process.wait(timeout=30) == 0
