"""The command `submit`: what it sends, what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from miner.cli.submit import submit_app
from tests.support.paths import ROOT

from .stub import Say, Stub

WAITING = {"task_id": "t1", "status": "waiting"}
FINISHED = {"task_id": "t1", "status": "finished", "result": "a/b.png"}
UPSCALE = ("upscaler", "--image", "https://a.example/b.jpg")


@pytest.fixture(autouse=True)
def ready(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stub that takes tasks and finishes them, and an environment that names it."""
    monkeypatch.setenv("XALORA_API_KEY", "me#s3cret")
    monkeypatch.setenv("XALORA_WORKFLOW_URL", stub.url)
    stub.answer("/task_create", {"task_id": "t1"})
    stub.answer("/task_result_query", FINISHED)


def submit(*arguments: str | Path) -> Result:
    return CliRunner().invoke(submit_app, [str(argument) for argument in arguments])


def parameters(stub: Stub) -> dict[str, object]:
    [created] = stub.sent("/task_create")
    sent: dict[str, object] = created["task_details"]["parameters"]
    return sent


def test_a_finished_task_is_printed_and_leaves_with_0() -> None:
    done = submit(*UPSCALE)

    assert done.exit_code == 0
    assert done.stdout.split() == ["task_id", "t1", "status", "finished", "result", "a/b.png"]


def test_a_local_picture_comes_home_enlarged(stub: Stub, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "teal").save(tmp_path / "photo.jpg")
    stub.answer("/task_result_query", FINISHED | {"result_url": f"{stub.url}/store/b.png"})
    stub.answer("/store/b.png", Say(body=b"picture"))

    done = submit("upscaler", "--image", "photo.jpg", "--wait", "-o", "out.png")

    assert (done.exit_code, done.stderr) == (0, "")
    assert str(parameters(stub)["image"]).startswith("data:image/jpeg;base64,")
    assert (tmp_path / "out.png").read_bytes() == b"picture"
    assert done.stdout.splitlines()[-1].split() == ["output", "out.png"]


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (
            "txt2img",
            {"lora_name": "ink", "aspect_ratio": "16:9", "width": 64, "height": 32, "guidance": 3.5},
        ),
        ("txt2vid", {"width": 64, "height": 32, "length": 9, "fps": 12, "quality": 80}),
        ("img2vid", {"image": "https://a.example/b.jpg", "width": 64, "height": 32, "length": 9, "fps": 12}),
        ("img2img", {"image": "https://a.example/b.jpg", "size": 64, "denoise": 0.5, "guidance": 3.5}),
    ],
)
def test_every_parameter_is_sent(stub: Stub, kind: str, sent: dict[str, object]) -> None:
    sent = {"prompt": "cat", **sent, "steps": 4, "seed": 7}
    options = [word for name, value in sent.items() for word in (f"--{name.replace('_', '-')}", str(value))]

    assert submit(kind, *options, "--workflow-id", "3").exit_code == 0

    assert parameters(stub) == sent
    assert stub.sent("/task_create")[0]["workflow_id"] == "3"


def test_json_is_one_object_with_the_same_keys_whatever_happens(stub: Stub) -> None:
    finished = submit(*UPSCALE, "--json")
    created = submit(*UPSCALE, "--json", "--no-wait")
    stub.answer("/task_result_query", WAITING)
    late = submit(*UPSCALE, "--json", "--timeout", "0")
    stub.answer("/task_result_query", Say(status=404))
    refused = submit(*UPSCALE, "--json")

    none = {"status": None, "result": None, "msg": None, "output": None}
    assert json.loads(finished.stdout) == {
        "task_id": "t1",
        "status": "finished",
        "result": "a/b.png",
        "msg": "",
        "output": None,
    }
    assert json.loads(created.stdout) == {"task_id": "t1"} | none
    assert json.loads(late.stdout) == {"task_id": "t1"} | none | {"status": "waiting"}
    assert json.loads(refused.stdout) == {"task_id": "t1"} | none
    assert [done.exit_code for done in (finished, created, late, refused)] == [0, 0, 3, 1]


def test_leaving_at_once_asks_for_no_result(stub: Stub) -> None:
    done = submit(*UPSCALE, "--no-wait")

    assert (done.exit_code, done.stdout.split()) == (0, ["task_id", "t1"])
    assert stub.sent("/task_result_query") == []


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_task_that_failed_leaves_with_1_and_the_reason(stub: Stub, status: str) -> None:
    stub.answer("/task_result_query", {"task_id": "t1", "status": status, "msg": "no LoRA named ink"})

    done = submit(*UPSCALE, "-o", "out.png")

    assert done.exit_code == 1
    assert status in done.stdout
    assert "no LoRA named ink" in done.stdout
    assert not Path("out.png").exists()


def test_a_task_that_takes_too_long_leaves_with_3_and_how_to_go_on(stub: Stub) -> None:
    stub.answer("/task_result_query", WAITING)

    done = submit(*UPSCALE, "--timeout", "0")

    assert done.exit_code == 3
    assert "waiting" in done.stdout
    assert "submit result t1" in done.stderr


def test_a_terminal_shows_how_the_task_stands(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # Rich takes what it is given for a terminal
    stub.answer(
        "/task_result_query",
        WAITING | {"status": "running", "progress": {"stage": "render", "percent": 42.4, "eta_seconds": 9.6}},
    )

    done = submit(*UPSCALE, "--timeout", "0")

    assert "running: render, 42 %, 10 s left" in done.stderr
    assert done.stdout.split() == ["task_id", "t1", "status", "running"]


def test_a_key_without_a_url_is_said_not_to_be_a_file() -> None:
    done = submit(*UPSCALE, "-o", "out.png")

    assert done.exit_code == 0
    assert "out.png was not written" in done.stderr
    assert not Path("out.png").exists()


def test_a_download_that_fails_leaves_with_1_after_the_result_was_printed(stub: Stub) -> None:
    stub.answer("/task_result_query", FINISHED | {"result_url": f"{stub.url}/store/gone.png"})

    done = submit(*UPSCALE, "-o", "out.png")

    assert done.exit_code == 1
    assert "a/b.png" in done.stdout
    assert "gone.png was refused with 404" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--interval", "0.5"), "--interval"),
        (("--interval", "nan"), "--interval"),
        (("--timeout", "-1"), "--timeout"),
        (("--no-wait", "-o", "out.png"), "--wait"),
        (("-o", "nowhere/out.png"), "nowhere"),
        (("-o", "."), "directory"),
    ],
)
def test_a_wrong_option_leaves_with_2_before_anything_is_sent(stub: Stub, options: tuple[str, ...], words: str) -> None:
    done = submit(*UPSCALE, *options)

    assert done.exit_code == 2
    assert words in done.stderr
    assert stub.requests == []


def test_a_wrong_task_or_setting_leaves_with_2(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "missing.jpg" in submit("upscaler", "--image", "missing.jpg").stderr
    assert submit("upscaler", "--image", "missing.jpg").exit_code == 2
    assert submit("txt2vid", "--prompt", " ").exit_code == 2
    assert submit(*UPSCALE, "--url", "ftp://a.example").exit_code == 2
    monkeypatch.setenv("XALORA_API_KEY", "")
    assert "XALORA_API_KEY" in submit(*UPSCALE).stderr
    assert submit(*UPSCALE).exit_code == 2
    assert stub.requests == []


def test_a_wrong_key_leaves_with_2_and_a_lost_sequencer_with_1(stub: Stub) -> None:
    stub.answer("/task_create", Say(status=401, body={"message": "wrong key"}))
    denied = submit(*UPSCALE)

    assert (denied.exit_code, "wrong key" in denied.stderr) == (2, True)
    assert submit(*UPSCALE, "--url", "http://127.0.0.1:1").exit_code == 1


def test_what_a_sequencer_says_reaches_no_terminal_as_an_escape_sequence(stub: Stub) -> None:
    stub.answer("/task_result_query", {"task_id": "t1", "status": "failed", "msg": "\x1b[2Jgone\ud800\r\n"})

    assert "\x1b" not in submit(*UPSCALE).stdout
    assert json.loads(submit(*UPSCALE, "--json").stdout)["status"] == "failed"


def test_an_interrupt_leaves_with_130_and_how_to_go_on(stub: Stub, tmp_path: Path) -> None:
    stub.answer("/task_result_query", WAITING)
    command = [sys.executable, "-c", "from miner.cli.submit import submit_app; submit_app()", *UPSCALE]
    source = {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | source, cwd=tmp_path
    ) as process:
        asked = stub.reaches(lambda: any(request.path == "/task_result_query" for request in stub.requests))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=10)

    assert asked
    assert process.returncode == 130
    assert stdout.split() == ["task_id", "t1"]
    assert "submit result t1" in stderr
    assert "Traceback" not in stderr


def test_the_command_is_imported_without_requests() -> None:
    check = "import sys, miner.cli.submit; sys.exit('requests' in sys.modules or 'PIL' in sys.modules)"
    source = {"PYTHONPATH": str(ROOT)}

    assert subprocess.run([sys.executable, "-c", check], env=os.environ | source, check=False).returncode == 0
