"""A ComfyUI that lies, or something else on its port: the miner calls it down or the task failed, and goes on."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import websocket
from hypothesis import given, settings
from hypothesis import strategies as st

from miner.comfy.client import ComfyClient
from miner.comfy.events import EventStream, parse
from miner.comfy.host import ComfyHost
from miner.comfy.replies import parse_history
from miner.task.errors import MachineFault, MinerError
from miner.task.stages import OutputFile
from tests.support import flows
from tests.support.scripted_comfyui import ScriptedComfyUI, error, failure, success
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.strategies import ANYTHING
from tests.support.testbed import Testbed

PROMPT = "00000000-0000-4000-8000-000000000000"
KEYS = ("system", "devices", "queue_running", "queue_pending", "node_errors", "error", "name", "subfolder", "status")
ALMOST = st.dictionaries(st.sampled_from([*KEYS, "outputs", "messages", "status_str", PROMPT]), ANYTHING, max_size=4)
HISTORIES = ALMOST | st.fixed_dictionaries(
    {"status": st.fixed_dictionaries({"messages": st.lists(st.tuples(ANYTHING, ANYTHING) | ANYTHING, max_size=3)})}
)


def test_any_json_for_a_reply_is_read_or_refused() -> None:
    said: dict[str, Any] = {}
    with ScriptedServer(lambda _: reply(said["body"], status=said["status"])) as server:
        client = ComfyClient(server.url, client_id="x", timeout=5.0)
        calls = (
            client.stats,
            client.queue,
            client.object_info,
            lambda: client.history(PROMPT),
            lambda: client.submit({}, PROMPT),
            lambda: client.upload_image(b"", "a.png", subfolder=""),
        )

        @settings(max_examples=60)
        @given(ALMOST | HISTORIES.map(lambda entry: {PROMPT: entry}) | ANYTHING, st.sampled_from([200, 400]))
        def ask(body: Any, status: int) -> None:
            said.update(body=body, status=status)
            for call in calls:
                try:
                    call()
                except MinerError as refusal:
                    said["refusal"] = refusal.message

        with closing(client):
            ask()
        assert said["refusal"].isprintable()


@given(HISTORIES)
def test_any_history_is_an_end(entry: dict[str, Any]) -> None:
    assert parse_history(entry).status in ("success", "error", "interrupted")


@given(
    st.sampled_from([websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_PING]),
    st.binary(max_size=60)
    | st.builds(lambda kind, rest: struct.pack(">I", kind) + rest, st.integers(0, 5), st.binary(max_size=40))
    | st.builds(lambda kind, data: reply({"type": kind, "data": data}).partition(b"\r\n\r\n")[2], ANYTHING, ANYTHING)
    | st.builds(
        lambda nodes: reply({"type": "progress_state", "data": {"prompt_id": PROMPT, "nodes": nodes}})[-500:], ANYTHING
    ),
)
def test_any_frame_is_an_event_or_none(opcode: int, data: bytes) -> None:
    parse(opcode, data)


def test_a_reply_nested_without_end_is_no_json() -> None:
    with (
        ScriptedServer(lambda _: reply(b"[" * 100_000)) as server,
        closing(ComfyClient(server.url, client_id="x")) as client,
        pytest.raises(MachineFault),
    ):
        client.queue()


# ---- its files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Iterator[ComfyHost]:
    """One whose output folder is on this disk, and which has a picture to show for every name."""
    (tmp_path / "output").mkdir()
    with ScriptedComfyUI() as comfyui:
        host = ComfyHost(
            ComfyClient(comfyui.url, client_id="x"),
            EventStream(comfyui.url, client_id="x"),
            output_dir=tmp_path / "output",
        )
        yield host
        host.close()


NO_FILES = (
    {"filename": "a\0.png"},
    {"filename": "a" * 5000},
    {"filename": ""},
    {"subfolder": [1]},
    {"filename": "\ud800"},
)


@pytest.mark.parametrize("named", NO_FILES)
def test_a_name_that_no_file_can_have_is_none(named: dict[str, Any]) -> None:
    assert parse_history(success(**named)).outputs == {"save": ()}


@pytest.mark.parametrize(
    "filename",
    [
        "../../secret.png",
        "/etc/passwd",
        "..",
        ".",
        "link.png",
        "linked/secret.png",
        "x/../../secret.png",
    ],
)
def test_no_name_of_a_file_leads_out_of_the_output_folder(host: ComfyHost, tmp_path: Path, filename: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "output" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "output" / "linked").symlink_to(tmp_path)
    copies = tmp_path / "copies"
    copies.mkdir()
    for subfolder in ("", "..", "a/" * 100, str(tmp_path)):
        file = OutputFile(filename=filename, subfolder=subfolder, kind="output")
        path = host.fetch(file, copies)
        assert path.parent == copies
        assert path.read_bytes() != b"secret"


def test_a_sub_folder_among_the_outputs_harms_nobody(host: ComfyHost, tmp_path: Path) -> None:
    outputs = tmp_path / "output" / "xalora" / PROMPT
    (outputs / "sub" / "sub").mkdir(parents=True)
    (outputs / "out.png").write_bytes(b"")
    host.discard(PROMPT)
    assert not outputs.exists()


@pytest.mark.parametrize("link", ["xalora", f"xalora/{PROMPT}"])
def test_what_a_link_in_the_output_folder_leads_to_is_not_deleted(host: ComfyHost, tmp_path: Path, link: str) -> None:
    precious = tmp_path / "precious" / PROMPT
    precious.mkdir(parents=True)
    (precious / "photo.png").write_bytes(b"")
    path = tmp_path / "output" / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(precious if link.endswith(PROMPT) else precious.parent)
    host.discard(PROMPT)
    assert (precious / "photo.png").exists()


def test_a_full_disk_is_the_machines_fault(host: ComfyHost, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(MachineFault, match="cannot write an output"):
        host.client.download(OutputFile(filename="out.png", subfolder="", kind="output"), full)


# ---- a worker that is lied to ---------------------------------------------------------------------------------------


ENDS = {
    "a status that is a list": {"status": ["success"], "outputs": []},
    "messages that are no pairs": failure(1, "x", [], [1, 2, 3], [[], {}], {"execution_error": 1}),
    "an error that is a string": failure(["execution_error", "boom"]),
    "names of many lines": failure(error(exception_type="E\nTraceback\n/home/me", node_type="n\x1b[2J" * 1000)),
    "a path and an address for a name": failure(error(exception_type="/home/me/x.py", node_type="http://10.0.0.1/")),
}
REFUSALS = {
    "node_errors that are a list": {"error": "x", "node_errors": [1, 2]},
    "node_errors of strings": {"error": {}, "node_errors": {"1": "boom"}},
    "errors of many lines": {
        "node_errors": {"1": {"class_type": "/home/me\n", "errors": [{"type": "a\nb", "details": "secret"}, 5]}}
    },
    "an error of anything": {"error": {"type": ["x"]}, "node_errors": None},
}


def test_a_worker_survives_a_comfyui_that_lies_and_its_words_do_not_reach_the_consumer(testbed: Testbed) -> None:
    stats = [{"system": None, "devices": [{"vram_total": "much"}]}]
    infos = [{"LoadImage": {"input": {"required": {"image": []}}}, "SaveImage": 5}]
    testbed.start_devnet()
    name = testbed.add_workflow("plain", flows.plain(loads=True), parameters=flows.IMAGE)
    (testbed.folder / "output").mkdir()
    with ScriptedComfyUI(stats=stats, infos=infos) as comfyui:
        testbed.start_worker(
            comfyui.url,
            workflows={"4": [name]},
            program="tests.support.impatient",
            comfyui__output_dir=str(testbed.folder / "output"),
            comfyui__interrupt_grace=1.0,
        )
        for what, lie in {**ENDS, **REFUSALS}.items():
            comfyui.refusal = lie if what in REFUSALS else None
            comfyui.end = lie if what in ENDS else success()
            (task,) = testbed.ended(testbed.create(), patience=20.0)
            assert not testbed.logged("loop_failed"), what
            assert task["msg"].isprintable(), what
            assert len(task["msg"]) < 200, what
            assert not any(word in task["msg"] for word in ("/home", "10.0.0.1", "Traceback", "secret")), what
            comfyui.refusal, comfyui.end = None, success()
            (good,) = testbed.ended(testbed.create(), patience=20.0)
            assert good["status"] == "finished", (what, good["msg"])
        assert testbed.worker.stop() == 0
