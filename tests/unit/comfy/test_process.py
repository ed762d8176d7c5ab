"""A managed ComfyUI's process starts and ends. All processes here are real ones."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from miner.comfy.client import ComfyDown
from miner.comfy.launch import embedded_launch, managed_launch
from tests.support.testbed import free_port, until
from tests.unit.comfy.owner import standin
from tests.unit.comfy.processes import GO_ON, LONG, Make, children_of, is_running, killed, pid_of

# ---- starting -------------------------------------------------------------------------------------------------------


def test_it_is_ready_when_start_returns_and_gone_when_stop_returns(make: Make, tmp_path: Path) -> None:
    port = free_port()
    process = make(standin(port, tmp_path))
    assert (process.alive(), process.pid, process.rss_bytes()) == (False, None, 0)
    process.start(GO_ON)
    pid = pid_of(process)
    assert process.alive()
    assert process.rss_bytes() > 1_000_000
    process.stop()
    assert not is_running(pid)
    assert (process.alive(), process.pid, process.rss_bytes()) == (False, None, 0)
    with closing(socket.socket()) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))
    process.stop()  # again, with nothing to do


def test_it_runs_without_a_log_if_none_can_be_written(make: Make, tmp_path: Path) -> None:
    """Such as on a disk that is full or was made read-only."""
    process = make(standin(free_port(), tmp_path))
    process.log_path.unlink(missing_ok=True)
    process.log_path.mkdir(parents=True)
    process.start(GO_ON)
    assert process.alive()
    process.tidy()


@pytest.mark.parametrize(("number", "fault"), [(signal.SIGKILL, "memory"), (signal.SIGSEGV, "machine")])
def test_the_kernels_kill_is_a_lack_of_memory(make: Make, tmp_path: Path, number: int, fault: str) -> None:
    process = make(standin(free_port(), tmp_path))
    process.start(GO_ON)
    os.kill(pid_of(process), number)
    until(lambda: not process.alive(), why="its death")
    with pytest.raises(ComfyDown, match=f"signal {number:d}") as caught:
        process.check()
    assert caught.value.fault == fault


def test_an_exit_code_is_waited_for_until_the_last_thread_has_ended(make: Make, tmp_path: Path) -> None:
    """The kernel shows a process as ended when its main thread is; the code comes once its memory is freed."""
    process = make(standin(free_port(), tmp_path, "--survives-its-main-thread"))
    process.start(GO_ON)
    pid = pid_of(process)
    os.kill(pid, signal.SIGUSR1)
    until(lambda: not process.alive(), why="the end of its main thread")
    last = threading.Timer(0.2, os.kill, (pid, signal.SIGKILL))
    last.start()
    with pytest.raises(ComfyDown, match="signal 9") as caught:
        process.check()
    assert caught.value.fault == "memory"
    last.join()


def test_starting_what_runs_and_answers_leaves_it_alone(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path))
    process.start(GO_ON)
    pid = process.pid
    process.start(GO_ON)
    assert process.pid == pid


def test_one_that_ends_at_its_start_is_reported_with_its_last_words(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path, "--no-such-flag"))
    process.log_path.write_text("words of an earlier run\n")
    with pytest.raises(ComfyDown, match="ended with code 2") as caught:
        process.start(GO_ON)
    assert "unrecognized arguments: --no-such-flag" in caught.value.hint
    assert str(process.log_path) in caught.value.hint
    assert not process.alive()


def test_a_program_that_is_not_there_is_named(make: Make, tmp_path: Path) -> None:
    launch = standin(free_port(), tmp_path)
    with pytest.raises(ComfyDown, match="No such file") as caught:
        make(replace(launch, argv=("/no/such/python",))).start(GO_ON)
    assert "/no/such/python" in caught.value.hint


def test_one_that_does_not_get_ready_in_time_is_ended(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path, "--never-ready"), start_timeout=0.05)
    with pytest.raises(ComfyDown, match="not ready after"):
        process.start(GO_ON)
    assert process.pid is None


def test_a_stop_during_the_start_leaves_nothing_running(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path, "--never-ready", "--children"))
    should_stop = threading.Event()
    failures: list[ComfyDown] = []

    def start() -> None:
        try:
            process.start(should_stop)
        except ComfyDown as down:
            failures.append(down)

    thread = threading.Thread(target=start)
    thread.start()
    until(lambda: process.log_path.exists() and "loading for ever" in process.log_path.read_text(), why="its start")
    should_stop.set()
    thread.join(LONG)
    assert "stopped during its start" in failures[0].message
    assert not any(is_running(pid) for pid in children_of(process))


def test_a_port_that_another_program_has_is_named_and_the_program_left_alone(make: Make, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        with pytest.raises(ComfyDown, match=f"port {port}.*in use") as caught:
            make(standin(port, tmp_path)).start(GO_ON)
    assert "XALORA_COMFYUI_PORT" in caught.value.hint


# ---- ending ---------------------------------------------------------------------------------------------------------


def test_a_killed_one_is_not_alive_and_can_be_restarted(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path))
    process.start(GO_ON)
    first = pid_of(process)
    killed(first)
    assert not process.alive()
    process.restart("it ended", GO_ON)
    assert process.alive()
    assert process.pid != first


@pytest.mark.parametrize(("flags", "grace"), [((), LONG), (("--deaf-to-sigterm",), 0.05)], ids=["hears", "ignores"])
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "under SIGSTOP"])
def test_one_that_hears_or_ignores_sigterm_ends(
    make: Make, tmp_path: Path, flags: tuple[str, ...], grace: float, stopped: bool
) -> None:
    process = make(standin(free_port(), tmp_path, *flags), stop_grace=grace)
    process.start(GO_ON)
    pid = pid_of(process)
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    process.stop()
    assert not is_running(pid)


def test_its_children_end_with_it_even_in_sessions_of_their_own(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path, "--children"))
    process.start(GO_ON)
    children = children_of(process)
    assert all(is_running(pid) for pid in children)
    process.stop()
    assert not any(is_running(pid) for pid in children)


def test_children_that_outlived_it_end_before_the_next_start(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path, "--children"))
    process.start(GO_ON)
    pid, (in_session, escaped) = pid_of(process), children_of(process)
    try:
        killed(pid)
        assert is_running(in_session)
        process.start(GO_ON)
        assert not is_running(in_session)
    finally:
        killed(escaped)  # its parent and its session tell nothing any more


def test_memory_counts_the_children(make: Make, tmp_path: Path) -> None:
    alone, family = (
        make(standin(free_port(), tmp_path / name, *flags), state=tmp_path / name)
        for name, flags in (("alone", ()), ("family", ("--children",)))
    )
    alone.start(GO_ON)
    family.start(GO_ON)
    assert family.rss_bytes() > alone.rss_bytes() + 2_000_000


# ---- with real programs ---------------------------------------------------------------------------------------------


def test_the_embedded_engine_starts_answers_and_stops(make: Make, tmp_path: Path) -> None:
    secrets = {"XALORA_API_KEY": "sk-very-secret", "HF_TOKEN": "hf-very-secret", "NVIDIA_API_KEY": "nv-very-secret"}
    process = make(embedded_launch(port=free_port(), state=tmp_path, environ=os.environ | secrets))
    process.start(GO_ON)
    pid = process.pid
    environ = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"very-secret" not in environ
    assert b"PATH=" in environ
    process.stop()
    assert not process.alive()


@pytest.mark.skipif("COMFYUI_HOME" not in os.environ, reason="COMFYUI_HOME names no ComfyUI to start")
@pytest.mark.timeout(400)
def test_a_real_comfyui_starts_answers_and_stops(make: Make, tmp_path: Path) -> None:
    """COMFYUI_PYTHON is its interpreter (default: this one), COMFYUI_ARGS more arguments, such as --cpu."""
    launch = managed_launch(
        home=Path(os.environ["COMFYUI_HOME"]),
        python=Path(os.environ.get("COMFYUI_PYTHON", sys.executable)),
        port=free_port(),
        gpu=None,
        state=tmp_path,
        models_dir=tmp_path / "models",
        extra_args=os.environ.get("COMFYUI_ARGS", "").split(),
    )
    process = make(launch, start_timeout=300.0)
    began = time.monotonic()
    process.start(GO_ON)
    print(f"ready after {time.monotonic() - began:.1f} s, {process.rss_bytes() / 1e6:.0f} MB")
    pid = pid_of(process)
    assert "extra search path loras" in process.log_path.read_text()
    assert process.log_path.with_name("comfyui.db").exists(), "it uses the database that all share"
    process.stop()
    assert not is_running(pid)
