"""A ComfyUI of ours as a process. All processes here are real ones."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from miner.comfy.client import ComfyDown
from miner.comfy.deaths import DEATHS_WINDOW, describe_ending, too_many
from miner.comfy.launch import Launch, embedded_launch, managed_launch
from miner.comfy.process import LOG_LIMIT, ComfyProcess, tail
from miner.comfy.process_tree import PAGE, Process, boot_id, find_process, is_alive, parse_stat
from tests.support.paths import ROOT
from tests.unit.comfy.owner import standin

GO_ON = threading.Event()  # never set
LONG = 60.0  # seconds; nothing here should take that long


class NoJitter(random.Random):
    def uniform(self, a: float, _b: float) -> float:
        return a


Make = Callable[..., ComfyProcess]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes processes that are ended with the test."""
    with ExitStack() as stack:

        def make_one(launch: Launch, **settings: object) -> ComfyProcess:
            defaults = {"state": tmp_path, "start_timeout": LONG, "rng": NoJitter()}
            process = ComfyProcess(launch, **(defaults | settings))  # type: ignore[arg-type]
            stack.callback(process.kill)
            return process

        yield make_one


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_running(pid: int) -> bool:
    process = find_process(pid)
    return process is not None and is_alive(process)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.01)


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))


def children_of(process: ComfyProcess) -> list[int]:
    words = process.log_path.read_text().split()
    return [int(pid) for pid in words[words.index("children") + 1 :][:2]]


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """A stand-in whose owner was killed; gives its process id."""
    pids: list[int] = []

    def make_orphan(port: int, *flags: str) -> int:
        command = [sys.executable, "-m", "tests.unit.comfy.owner", str(port), str(tmp_path), *flags]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            said = owner.stdout.readline()
            owner.kill()
        pids.append(int(said))
        return pids[-1]

    yield make_orphan
    for pid in filter(is_running, pids):
        killed(pid)


# ---- starting -------------------------------------------------------------------------------------------------------


def test_it_is_ready_when_start_returns_and_gone_when_stop_returns(make: Make, tmp_path: Path) -> None:
    port = free_port()
    process = make(standin(port, tmp_path))
    assert (process.alive(), process.pid, process.rss_bytes()) == (False, None, 0)
    process.start(GO_ON)
    pid = process.pid
    assert pid is not None
    assert process.alive()
    assert process.rss_bytes() > 1_000_000
    process.stop()
    assert not is_running(pid)
    assert (process.alive(), process.pid, process.rss_bytes()) == (False, None, 0)
    with closing(socket.socket()) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))
    process.stop()  # again, with nothing to do


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
    wait_until(lambda: process.log_path.exists() and "loading for ever" in process.log_path.read_text())
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
    first = process.pid
    assert first is not None
    killed(first)
    assert not process.alive()
    process.restart("it ended", GO_ON)
    assert process.alive()
    assert process.pid != first


def test_one_that_was_stopped_with_sigstop_still_ends(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path), stop_grace=LONG)
    process.start(GO_ON)
    pid = process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    process.stop()
    assert not is_running(pid)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "under SIGSTOP"])
def test_one_that_ignores_sigterm_is_killed_after_the_grace(make: Make, tmp_path: Path, stopped: bool) -> None:
    process = make(standin(free_port(), tmp_path, "--deaf-to-sigterm"), stop_grace=0.05)
    process.start(GO_ON)
    pid = process.pid
    assert pid is not None
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
    pid, (in_session, escaped) = process.pid, children_of(process)
    assert pid is not None
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


# ---- adoption -------------------------------------------------------------------------------------------------------


def test_one_whose_miner_was_killed_is_kept_and_can_be_stopped(
    make: Make, orphan: Callable[..., int], tmp_path: Path
) -> None:
    port = free_port()
    pid = orphan(port)
    process = make(standin(port, tmp_path))
    process.start(GO_ON)
    assert process.pid == pid
    assert process.alive()
    assert process.rss_bytes() > 1_000_000
    process.stop()
    assert not is_running(pid)


def test_the_death_of_an_adopted_one_is_noticed(make: Make, orphan: Callable[..., int], tmp_path: Path) -> None:
    port = free_port()
    pid = orphan(port)
    process = make(standin(port, tmp_path))
    process.start(GO_ON)
    killed(pid)
    assert not process.alive()
    process.start(GO_ON)
    assert process.pid not in (None, pid)


def test_one_is_found_even_if_its_miner_was_killed_before_it_wrote_the_pid_down(
    make: Make, orphan: Callable[..., int], tmp_path: Path
) -> None:
    port = free_port()
    pid = orphan(port)
    process = make(standin(port, tmp_path))
    (process.log_path.parent / "pid").unlink()
    process.start(GO_ON)
    assert process.pid == pid


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 1, "boot": ""}'])
def test_a_torn_pid_file_stops_nothing(make: Make, tmp_path: Path, torn: str) -> None:
    process = make(standin(free_port(), tmp_path))
    (process.log_path.parent / "pid").write_text(torn)
    process.start(GO_ON)
    assert process.alive()


def test_one_that_does_not_answer_any_more_is_replaced(make: Make, orphan: Callable[..., int], tmp_path: Path) -> None:
    port = free_port()
    pid = orphan(port, "--deaf-to-sigterm")
    os.kill(pid, signal.SIGSTOP)
    process = make(standin(port, tmp_path, "--deaf-to-sigterm"), adopt_timeout=0.3, stop_grace=0.05)
    process.start(GO_ON)
    assert not is_running(pid)
    assert process.alive()


def test_one_with_other_arguments_is_replaced(make: Make, orphan: Callable[..., int], tmp_path: Path) -> None:
    pid = orphan(free_port())
    process = make(standin(free_port(), tmp_path))
    process.start(GO_ON)
    assert not is_running(pid)
    assert process.alive()


@pytest.mark.parametrize("lie", [{"started": 1}, {"boot": "another"}], ids=["recycled id", "before a reboot"])
def test_a_process_that_only_has_the_same_id_is_left_alone(make: Make, tmp_path: Path, lie: dict[str, object]) -> None:
    process = make(standin(free_port(), tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    ) as bystander:
        seen = find_process(bystander.pid)
        assert seen is not None
        record = {"pid": seen.pid, "started": seen.started, "boot": boot_id()} | lie
        (process.log_path.parent / "pid").write_text(json.dumps(record))
        process.start(GO_ON)
        assert bystander.poll() is None
        assert process.pid != bystander.pid
        bystander.kill()


# ---- deaths ---------------------------------------------------------------------------------------------------------


def test_five_deaths_in_ten_minutes_exhaust_it_until_they_are_old(make: Make, tmp_path: Path) -> None:
    now = 1000.0
    process = make(standin(free_port(), tmp_path, "--no-such-flag"), clock=lambda: now)
    for _ in range(5):
        assert process.exhausted is None
        now += 60
        with pytest.raises(ComfyDown):
            process.restart("it did not start", GO_ON)
    assert process.exhausted is not None
    assert str(process.log_path) in process.exhausted
    now += DEATHS_WINDOW - 4 * 60
    assert process.exhausted is None


def test_a_death_counts_whether_start_or_restart_follows(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path), clock=lambda: 0.0)
    process.start(GO_ON)
    for number in range(5):
        assert process.exhausted is None
        assert process.pid is not None
        killed(process.pid)
        if number % 2:
            process.start(GO_ON)
        else:
            process.restart("it ended", GO_ON)
    assert process.exhausted is not None


def test_a_restart_to_get_memory_back_is_no_death(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path), clock=lambda: 0.0)
    process.start(GO_ON)
    for _ in range(5):
        first = process.pid
        process.restart("its memory passed the limit", GO_ON, death=False)
        assert process.pid != first
    assert process.exhausted is None


@pytest.mark.parametrize(
    ("deaths", "now", "many"),
    [
        ([], 0, False),
        ([0, 1, 2, 3], 3, False),
        ([0, 1, 2, 3, 4], 4, True),
        ([0, 1, 2, 3, 4], 599, True),
        ([0, 1, 2, 3, 4], 600, False),
        ([0, 1, 2, 3, 4, 600], 600, True),
    ],
)
def test_too_many_deaths_are_five_in_ten_minutes(deaths: list[float], now: float, many: bool) -> None:
    assert too_many(deaths, now) is many


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "ended"),
        (0, "ended with code 0"),
        (-11, "was killed by signal 11 (Segmentation fault)"),
        (-9, "was killed by signal 9 (Killed, usually by the kernel when memory runs out)"),
        (-40, "was killed by signal 40 (Real-time signal 6)"),
    ],
)
def test_an_ending_is_said_in_words(code: int | None, words: str) -> None:
    assert describe_ending(code) == words


@pytest.mark.parametrize("name", ["python", "a b", ") R 1 1 1", "((("])
def test_a_process_is_read_rightly_whatever_its_name(name: str) -> None:
    text = f"42 ({name}) S 7 42 41 0 -1 4194304 864 0 0 0 1 0 0 0 20 0 1 0 141546 12812288 3 18446744073709551615"
    assert parse_stat(text) == Process(pid=42, started=141546, parent=7, session=41, rss=3 * PAGE)


# ---- its log --------------------------------------------------------------------------------------------------------


def test_last_words_have_no_colours_blank_lines_or_earlier_runs(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"earlier\n" + b"\x1b[31m[ERROR]\x1b[0m no\n\n 10%\r 20%\r\n" + b"last \xff\n")
    assert tail(path, 8) == ["[ERROR] no", "10%", "20%", "last \ufffd"]
    assert tail(path, 8, lines=1) == ["last \ufffd"]


def test_a_log_past_its_limit_is_emptied_under_the_running_process(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path))
    process.start(GO_ON)
    process.tidy()
    assert not process.log_path.with_name("log.1").exists()
    os.truncate(process.log_path, LOG_LIMIT + 1)
    process.tidy()
    assert process.log_path.stat().st_size == 0
    assert process.log_path.with_name("log.1").stat().st_size == LOG_LIMIT + 1
    assert process.alive()


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
    pid = process.pid
    assert "extra search path loras" in process.log_path.read_text()
    assert process.log_path.with_name("comfyui.db").exists(), "it uses the database that all share"
    process.stop()
    assert pid is not None
    assert not is_running(pid)
